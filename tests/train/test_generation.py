"""Leaving a group in place: what the next one begins with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from tradewind.train import generation


class ToldToLeaveError(Exception):
    """What the agent's signal raises, wherever the script is."""


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def begin(folder: Path) -> None:
    """A group of one worker, and one more beside it, as a loop makes them."""
    dist.init_process_group("gloo", init_method=f"file://{folder}", rank=0, world_size=1)
    dist.new_group()


@pytest.mark.parametrize("at", ["_update_default_pg", "_unregister_all_process_groups"])
def test_groups_that_were_half_taken_down_are_forgotten(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told to leave while it takes its groups down by itself, a worker names the next as those who begin do."""
    begin(tmp_path / "first")
    do = getattr(dist.distributed_c10d, at)

    def interrupted(*args: Any) -> None:
        do(*args)
        raise ToldToLeaveError

    monkeypatch.setattr(dist.distributed_c10d, at, interrupted)
    with pytest.raises(ToldToLeaveError):
        dist.destroy_process_group()
    monkeypatch.undo()
    assert not dist.is_initialized()
    generation.leave()
    begin(tmp_path / "second")
    assert dist.group.WORLD is not None
    assert dist.group.WORLD.group_name == "0"


def test_a_group_that_was_half_made_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told to leave while a group is being made, because a peer died just then, it counts on from none too."""

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise ToldToLeaveError

    monkeypatch.setattr(dist.distributed_c10d, "_new_process_group_helper", interrupted)
    with pytest.raises(ToldToLeaveError):
        begin(tmp_path / "first")
    monkeypatch.undo()
    generation.leave()
    begin(tmp_path / "second")
    assert dist.group.WORLD is not None
    assert dist.group.WORLD.group_name == "0"
