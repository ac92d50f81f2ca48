"""Checkpoints of N workers on M workers: replicated, sharded by FSDP, and tables cut by rows."""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.train import states, workers
from tradewind.errors import IntegrityError, TradewindError
from tradewind.train import checkpoint
from tradewind.train.checkpoint import Rows, fetch, sums
from tradewind.train.checkpoint.rows import share_of

WORLDS = [(before, after) for before in (1, 2, 3, 4) for after in (1, 2, 3, 4)]


def table(rows: int = 1001, width: int = 7) -> torch.Tensor:
    """A table whose rows all differ."""
    return torch.arange(rows * width, dtype=torch.float32).reshape(rows, width)


def cut(rank: int, world: int) -> dict[str, Any]:
    """A state with tables cut over the workers, evenly and not, beside what all hold alike."""
    whole = table()
    start, stop = share_of(len(whole), rank, world)
    lopsided = len(whole) if world == 1 else 17
    edge = lopsided if rank else 0
    mine = whole[edge:] if rank == world - 1 else whole[:17] if rank == 0 else whole[17:17]
    return {
        "even": Rows(whole[start:stop], start, len(whole)),
        "lopsided": Rows(mine if world > 1 else whole, edge if world > 1 else 0, len(whole)),
        "bias": torch.arange(5.0),
    }


def save(root: Path, world: int) -> Path:
    """A checkpoint of `cut` by so many workers."""
    folders = states.on_all(
        world, lambda p: checkpoint.save(root, 1, cut(p.rank, world), states.own(p.rank), peers=p)
    )
    assert all(isinstance(folder, Path) for folder in folders), folders
    return Path(folders[0])


@pytest.mark.parametrize(("before", "after"), WORLDS)
def test_tables_are_cut_anew(before: int, after: int, tmp_path: Path) -> None:
    """Rows saved by N workers are together all rows on M, bit for bit, and the same ones when M is N."""
    folder = save(tmp_path, before)
    loaded = [checkpoint.load(folder, rank, world=after) for rank in range(after)]
    for name in ("even", "lopsided"):
        rows = [each.shared[name] for each in loaded]
        assert torch.equal(torch.cat([part.local for part in rows]), table())
        assert [part.start for part in rows] == [0, *[part.stop for part in rows[:-1]]]
        assert {part.total for part in rows} == {1001}
        if before == after:
            assert [part.start for part in rows] == [cut(rank, before)[name].start for rank in range(after)]
    assert all(torch.equal(each.shared["bias"], torch.arange(5.0)) for each in loaded)
    assert [each.own["rank"] for each in loaded] == [rank if rank < before else 0 for rank in range(after)]
    assert {each.world for each in loaded} == {before}


def test_a_rank_beyond_the_world_has_no_rows(tmp_path: Path) -> None:
    """A rank that the checkpoint never had must say how many load."""
    with pytest.raises(TradewindError, match=r"even is cut over .* say world="):
        checkpoint.load(save(tmp_path, 2), 2)


def test_rows_that_nobody_saved_are_missed(tmp_path: Path) -> None:
    """When the workers' rows do not make the whole table, loading says which rows of which are missing."""

    def save_gap(peers: Any) -> Path:
        rows = Rows(table()[:10] if peers.rank else table()[20:], 0 if peers.rank else 20, 1001)
        return checkpoint.save(tmp_path, 1, {"t": rows}, {}, peers=peers)

    [folder, _] = states.on_all(2, save_gap)
    with pytest.raises(TradewindError, match="rows 10 to 334 of t are not here"):
        checkpoint.load(folder, 0, world=3)


def test_only_the_chunks_with_its_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of four workers reads a quarter of a large table, give or take a chunk at either end."""
    whole = torch.zeros(10 << 20)
    folder = checkpoint.save(tmp_path, 1, {"t": Rows(whole, 0, len(whole))}, {})
    read: list[int] = []
    original = fetch._fill

    def counted(fd: int, buffers: list[memoryview], position: int) -> int:
        read.append(sum(len(buffer) for buffer in buffers))
        return original(fd, buffers, position)

    monkeypatch.setattr(fetch, "_fill", counted)
    loaded = checkpoint.load(folder, 2, world=4, check="read")
    assert loaded.shared["t"].start == 5 << 20
    assert whole.nbytes / 4 <= sum(read) <= whole.nbytes / 4 + 3 * sums.CHUNK + 10_000


@pytest.mark.parametrize("after", [1, 2, 3])
def test_together_the_workers_check_every_byte(after: int, tmp_path: Path) -> None:
    """Whatever is flipped, and however many load, one of those that load together refuses it; whole, none does."""
    large = torch.arange(3 << 20, dtype=torch.float32)

    def save_two(peers: Any) -> Path:
        half = len(large) // 2
        rows = Rows(large[half:] if peers.rank else large[:half], half * peers.rank, len(large))
        own = {"mine": torch.full((2 << 20,), float(peers.rank)), "rank": peers.rank}
        return checkpoint.save(tmp_path, 1, {"t": rows, "bias": torch.arange(5.0)}, own, peers=peers)

    [folder, _] = states.on_all(2, save_two)

    def refusals() -> int:
        count = 0
        for rank in range(after):
            try:
                checkpoint.load(folder, rank, world=after, check="together")
            except IntegrityError:
                count += 1
        return count

    assert refusals() == 0
    drawn = random.Random(after)
    for path in sorted(folder.iterdir()):
        for place in {0, path.stat().st_size - 1, *(drawn.randrange(path.stat().st_size) for _ in range(3))}:
            states.flip(path, place)
            assert refusals() >= 1, (path.name, place)
            states.flip(path, place)
    assert refusals() == 0


def test_slices_are_plain_safetensors(tmp_path: Path) -> None:
    """Whole tensors lie under their own names, rows under `name[first:stop]`, for any reader."""
    folder = save(tmp_path, 2)
    first = safetensors.torch.load_file(folder / "shared-00000-of-00002.safetensors")
    second = safetensors.torch.load_file(folder / "shared-00001-of-00002.safetensors")
    assert set(first) == {"bias", "even[0:501]", "lopsided[0:17]"}
    assert set(second) == {"even[501:1001]", "lopsided[17:1001]"}
    assert torch.equal(torch.cat([first["even[0:501]"], second["even[501:1001]"]]), table())


FSDP = """
import multiprocessing, os, sys, traceback
from pathlib import Path
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from tradewind.train import checkpoint
from tradewind.train.distributed import Peers

ROOT, SHM, BEFORE = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)

def build(mesh):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(13, 10), nn.ReLU(), nn.Linear(10, 7), nn.LayerNorm(7), nn.Linear(7, 1))
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    return model, torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)

def step(model, optimizer):
    inputs = torch.randn(12, 13, generator=torch.Generator().manual_seed(5))
    model(inputs).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()

def full(state):
    return {k: (v.full_tensor() if hasattr(v, "full_tensor") else v) for k, v in state.items()}

def everything(model, optimizer):
    found = full(model.state_dict())
    for index, moments in optimizer.state_dict()["state"].items():
        found |= {f"{index}.{key}": value for key, value in full(moments).items()}
    return found

def save(memory, mesh, before):
    model, optimizer = build(mesh)
    for _ in range(3):
        step(model, optimizer)
    shared = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    checkpoint.save(ROOT / str(before), 3, shared, {}, peers=Peers())
    memory.stage(3, shared, {"rank": dist.get_rank()})
    truth = everything(model, optimizer)
    if dist.get_rank() == 0:
        torch.save(truth, ROOT / f"{before}.pt")

def load(memory, mesh, before):
    rank, world = dist.get_rank(), dist.get_world_size()
    truth = torch.load(ROOT / f"{before}.pt", weights_only=True)
    folder = ROOT / str(before) / "step-000000000003"
    for found in (checkpoint.load(folder, rank, world=world, mesh=mesh), memory.load(3, mesh=mesh)):
        model, optimizer = build(mesh)
        step(model, optimizer)
        model.load_state_dict(found.shared["model"])
        optimizer.load_state_dict(found.shared["optimizer"])
        now = everything(model, optimizer)
        assert now.keys() == truth.keys()
        for name in truth:
            assert torch.equal(now[name], truth[name]), name
        step(model, optimizer)
    whole = checkpoint.load(folder, rank).shared["model"]["0.weight"]
    assert type(whole) is torch.Tensor and torch.equal(whole, truth["0.weight"])

def work(do, rank, world, before):
    dist.init_process_group(
        "gloo", rank=rank, world_size=world, store=dist.FileStore(str(ROOT / f"{do.__name__}-{before}-{world}"), world)
    )
    place = {"rank": rank, "world": world, "local_rank": rank, "local_world": world}
    do(checkpoint.Memory(SHM / str(before), **place), init_device_mesh("cpu", (world,)), before)
    dist.barrier()
    dist.destroy_process_group()

def together(do, world, before):
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=work, args=(do, rank, world, before)) for rank in range(world)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * world, (do.__name__, before, world)

together(save, BEFORE, BEFORE)
for after in (1, 2, 3, 4):
    together(load, after, BEFORE)
print("all")
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", [1, 2, 3, 4])
def test_fsdp_state_moves_between_worlds(before: int, tmp_path: Path, shm: Path) -> None:
    """A model and AdamW under `fully_shard` are bitwise the same on 1 to 4 workers, from disk and memory."""
    command = [sys.executable, "-c", FSDP, str(tmp_path), str(shm), str(before)]
    env = workers.environment(0, 1, 0)
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "all\n"
