"""Which device a worker takes, as far as that can be told without GPUs."""

import pytest
import torch

from tradewind import train
from tradewind.errors import SpecError


@pytest.fixture
def two_gpus(monkeypatch):
    """As if there were two; the one that is chosen is remembered, and no context made."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


@pytest.mark.parametrize(
    ("asked", "taken"),
    [(None, "cuda:1"), ("cuda", "cuda:1"), ("cuda:0", "cuda:0"), ("cpu", "cpu")],
)
def test_a_worker_takes_its_own_gpu_or_what_it_asks_for(asked, taken, two_gpus, monkeypatch):
    """And makes it the current one."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    with train.distributed(device=asked) as ctx:
        assert ctx.device == torch.device(taken)
    assert two_gpus == ([] if taken == "cpu" else [torch.device(taken)])


def test_more_workers_than_gpus_are_refused(two_gpus, monkeypatch):
    """The third of a host is told how many there are, and what to do."""
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(SpecError, match=r"local rank 2 has no GPU: this host shows 2 .* device=\"cpu\""):
        train.distributed()
    assert two_gpus == []


def test_a_gpu_that_is_asked_for_is_not_replaced_by_the_cpu(monkeypatch):
    """Where there is none, "cuda" is an error."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SpecError, match="shows 0"):
        train.distributed(device="cuda")
    assert train.distributed().device == torch.device("cpu")
