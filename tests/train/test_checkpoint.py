"""Checkpoints on disk: what is written comes back, what is damaged is refused."""

import errno
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.train import states
from tradewind.errors import IntegrityError, TradewindError
from tradewind.train import checkpoint
from tradewind.train.checkpoint import files
from tradewind.train.distributed import Peers
from tradewind.train.journal import Journal
from tradewind.train.resume import newest_whole


def test_round_trip(tmp_path: Path) -> None:
    """A saved checkpoint loads with the same content, and tells its step and world."""
    folder = states.save(tmp_path, 7)
    loaded = checkpoint.load(folder)
    assert (loaded.step, loaded.world) == (7, 1)
    assert torch.equal(loaded.shared["model"]["weight"], states.shared(7)["model"]["weight"])
    assert loaded.shared["optimizer"]["param_groups"] == [{"betas": (0.9, 0.999)}]
    assert loaded.own["rank"] == 0
    assert checkpoint.latest(tmp_path) == folder


def test_tensors_are_plain_safetensors(tmp_path: Path) -> None:
    """Any safetensors reader opens the weights, by names that say where they belong."""
    tensors = safetensors.torch.load_file(states.save(tmp_path, 1) / "shared-00000-of-00001.safetensors")
    assert set(tensors) == {"model.weight", "model.tied", "optimizer.state.0.step"}
    assert torch.equal(tensors["model.weight"], states.shared(1)["model"]["weight"])


def damages(folder: Path, positions: int) -> list[tuple[str, Callable[[Path], Any]]]:
    """Single flipped bytes over all of every file, truncations, growth and loss."""
    chosen = random.Random(0)
    found: list[tuple[str, Callable[[Path], Any]]] = []
    for file in sorted(folder.iterdir()):
        size = file.stat().st_size
        places = {0, size - 1, *chosen.sample(range(size), min(size, positions))}
        found += [(file.name, lambda path, at=place: states.flip(path, at)) for place in sorted(places)]
        for length in {0, 1, size // 2, size - 1}:
            found.append((file.name, lambda path, length=length: os.truncate(path, length)))
        found.append((file.name, lambda path: path.write_bytes(path.read_bytes() + b"\n")))
        found.append((file.name, lambda path: path.unlink()))
    return found


def test_any_damaged_byte_is_refused_by_name(tmp_path: Path) -> None:
    """Wherever a file is flipped, cut, grown or lost, loading names it and the one before is used."""
    good, folder = states.save(tmp_path, 1), states.save(tmp_path, 2)
    whole = tmp_path.parent / "whole"
    shutil.copytree(folder, whole)
    cases = damages(folder, 60)
    assert len(cases) > 250
    for name, damage in cases:
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        damage(folder / name)
        with pytest.raises(IntegrityError, match=name):
            checkpoint.load(folder)
        told: list[str] = []
        assert checkpoint.latest(tmp_path, lambda path, why: told.append(str(why))) == good  # noqa: B023
        assert name in told[0]


def test_resume_passes_over_the_damaged_and_says_so(tmp_path: Path) -> None:
    """Resuming falls back to the last whole checkpoint and journals which file was damaged."""
    root = tmp_path / "checkpoints"
    states.save(root, 1)
    states.flip(states.save(root, 2) / "rank00000.safetensors", 40)
    found = newest_whole(root, Peers(), Journal(tmp_path / "journal"))
    assert found is not None
    assert found.loaded.step == 1
    assert "rank00000.safetensors" in (tmp_path / "journal").read_text()


def test_nothing_whole_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    """When every checkpoint is damaged, training refuses to begin again from nothing."""
    states.flip(states.save(tmp_path, 1) / "shared.json", 3)
    with pytest.raises(IntegrityError, match=r"no checkpoint .* is whole.*shared\.json"):
        newest_whole(tmp_path, Peers(), Journal(None))
    assert newest_whole(tmp_path / "empty", Peers(), Journal(None)) is None


def test_loaded_state_does_not_change_with_the_file(tmp_path: Path) -> None:
    """What was loaded lives in memory of its own: the file may be pruned or scribbled over."""
    folder = states.save(tmp_path, 1)
    loaded = checkpoint.load(folder)
    before = loaded.shared["model"]["weight"].clone()
    path = folder / "shared-00000-of-00001.safetensors"
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    assert torch.equal(loaded.shared["model"]["weight"], before)


def test_prune_keeps_the_newest_and_drops_a_refused_timeline(tmp_path: Path) -> None:
    """The newest `keep` up to this step stay; those beyond it were passed over when resuming."""
    for step in (1, 2, 3, 9):
        states.save(tmp_path, step)
    checkpoint.prune(tmp_path, keep=2, step=3)
    assert checkpoint.steps(tmp_path) == [2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000000002", "step-000000000003"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    """A step that is done again after a fallback takes the damaged one's place."""
    folder = states.save(tmp_path, 1)
    states.flip(folder / "shared.json", 3)
    with pytest.raises(IntegrityError):
        checkpoint.verify(folder)
    assert states.save(tmp_path, 1) == folder
    assert checkpoint.verify(folder).step == 1


def test_a_full_disk_commits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a file cannot be written the save fails, says why, and the one before stays the newest."""
    good = states.save(tmp_path, 1)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(TradewindError, match="No space left"):
        states.save(tmp_path, 2)
    monkeypatch.undo()
    assert checkpoint.latest(tmp_path) == good
    checkpoint.verify(states.save(tmp_path, 2))


def test_all_is_flushed_before_the_rename_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file and its folder are fsynced before the rename, and the parent folder after it."""
    events: list[tuple[str, Any]] = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(("fsync", os.fstat(fd).st_ino)), fsync(fd)))
    monkeypatch.setattr(os, "rename", lambda *paths: (events.append(("rename", paths)), rename(*paths)))
    folder = states.save(tmp_path, 1)
    at = [kind for kind, _ in events].index("rename")
    before, after = [what for _, what in events[:at]], [what for _, what in events[at + 1 :]]
    inodes = {path.stat().st_ino for path in folder.iterdir()}
    assert inodes < set(before)
    assert before[-1] == folder.stat().st_ino
    assert (folder / "manifest.json").stat().st_ino == before[-2]
    assert tmp_path.stat().st_ino in after


@pytest.mark.parametrize("world", [2, 3])
def test_workers_write_their_own_and_one_writes_the_shared(world: int, tmp_path: Path) -> None:
    """A checkpoint of several workers holds the shared state once and each one's own."""
    folders = states.on_all(
        world, lambda p: checkpoint.save(tmp_path, 4, states.shared(p.rank), states.own(p.rank), peers=p)
    )
    assert len(set(folders)) == 1
    assert set(checkpoint.verify(folders[0]).files) == {
        "shared.json",
        f"shared-00000-of-{world:05d}.safetensors",
        *(f"rank{rank:05d}.{kind}" for rank in range(world) for kind in ("json", "safetensors")),
    }
    for rank in range(world):
        loaded = checkpoint.load(folders[0], rank)
        assert loaded.own["rank"] == rank
        assert torch.equal(loaded.shared["model"]["weight"], states.shared(0)["model"]["weight"])
    assert checkpoint.load(folders[0], world).own["rank"] == 0


def big() -> dict[str, Any]:
    """Twelve MiB, in one large table, layers, and a tensor of a dtype that safetensors lacks."""
    generator = torch.Generator().manual_seed(5)
    layers = {f"layer{index}": torch.randn(300, 400, generator=generator) for index in range(8)}
    table = torch.randn(100_003, 20, generator=generator)
    return {"table": table, "layers": layers, "complex": torch.ones(3, dtype=torch.complex64)}


def same(left: Any, right: Any) -> bool:
    """Whether two states of dicts and tensors are alike bit for bit."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return left.dtype == right.dtype and torch.equal(left, right)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_shared_state_is_written_by_all(world: int, tmp_path: Path) -> None:
    """Each worker writes about its share of the bytes, and whoever loads gets all of them."""
    [folder, *_] = states.on_all(
        world, lambda p: checkpoint.save(tmp_path, 1, big(), states.own(p.rank), peers=p)
    )
    sizes = [path.stat().st_size for path in folder.glob("shared-*.safetensors")]
    assert len(sizes) == world
    assert max(sizes) < 1.3 * sum(sizes) / world
    for rank in range(world + 1):
        assert same(checkpoint.load(folder, rank).shared, big())


def test_damage_is_found_where_it_is(tmp_path: Path) -> None:
    """A flipped byte is refused with the chunk that it is in, and only by those who read that file."""
    folders = states.on_all(2, lambda p: checkpoint.save(tmp_path, 1, big(), states.own(p.rank), peers=p))
    name = "shared-00001-of-00002.safetensors"
    states.flip(folders[0] / name, 5_000_000)
    with pytest.raises(IntegrityError, match=rf"{name} is damaged: bytes 4194304 to \d+ are not"):
        checkpoint.load(folders[0])
    states.flip(folders[0] / name, 5_000_000)
    states.flip(folders[0] / "rank00001.json", 2)
    checkpoint.load(folders[0], check="read")
    with pytest.raises(IntegrityError, match=r"rank00001\.json"):
        checkpoint.load(folders[0])


def test_what_is_there_is_filled(tmp_path: Path) -> None:
    """Tensors of the right place, dtype and shape get the values and come back; others stay as they are."""
    state, own = big(), {"mine": torch.arange(7.0)}
    folder = checkpoint.save(tmp_path, 1, state, own)
    fitting = torch.nn.Parameter(torch.zeros_like(next(iter(state.values()))))
    name = next(iter(state))
    present = dict.fromkeys(state, torch.zeros(3, dtype=torch.int8)) | {name: fitting}
    mine = torch.zeros(7, dtype=torch.float64)
    loaded = checkpoint.load(folder, into=(present, {"mine": mine}))
    assert same(loaded.shared, state)
    assert same(loaded.own, own)
    assert loaded.shared[name].data_ptr() == fitting.data_ptr()
    assert torch.equal(fitting, state[name])
    assert not mine.any()


def test_workers_with_other_tensors_are_told(tmp_path: Path) -> None:
    """When the shared state is not alike in form, nothing is committed and the rank is named."""

    def save(peers: Peers) -> Path:
        state = {"weight": torch.ones(3 + peers.rank)}
        return checkpoint.save(tmp_path, 1, state, {}, peers=peers)

    for error in states.on_all(2, save):
        assert "rank 1 has other shared tensors than rank 0" in str(error)
    assert checkpoint.steps(tmp_path) == []


def test_one_worker_that_cannot_write_stops_all(tmp_path: Path) -> None:
    """When one worker's state cannot be stored every worker gets the reason, and nothing is committed."""

    def save(peers: Peers) -> Path:
        state = {"bad": object()} if peers.rank == 1 else {}
        return checkpoint.save(tmp_path, 1, states.shared(1), state, peers=peers)

    for error in states.on_all(3, save):
        assert isinstance(error, TradewindError)
        assert "rank 1: bad is a builtins.object" in str(error)
    assert checkpoint.steps(tmp_path) == []


def test_workers_on_different_disks_are_told(tmp_path: Path) -> None:
    """When rank 0 cannot see another worker's files it says that the folder must be shared."""

    def save(peers: Peers) -> Path:
        return checkpoint.save(tmp_path / str(peers.rank), 1, states.shared(1), {}, peers=peers)

    errors = states.on_all(2, save)
    assert all("all workers must share this folder" in str(error) for error in errors)


def test_workers_agree_on_the_checkpoint(tmp_path: Path) -> None:
    """When the newest is damaged where only one worker looks, all of them fall back together."""
    for step in (1, 2):
        states.on_all(
            2,
            lambda p: checkpoint.save(tmp_path, step, states.shared(1), states.own(p.rank), peers=p),  # noqa: B023
        )
    states.flip(tmp_path / "step-000000000002" / "rank00001.safetensors", 70)
    found = states.on_all(2, lambda p: newest_whole(tmp_path, p, Journal(None)))
    assert [one.loaded.step for one in found] == [1, 1]
    assert [one.loaded.own["rank"] for one in found] == [0, 1]
