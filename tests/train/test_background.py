"""Writing staged images in the background: what is committed, what is skipped, and who hears of errors."""

import mmap
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train import states
from tests.train.disks import Disk
from tradewind.errors import TradewindError
from tradewind.train import checkpoint
from tradewind.train.checkpoint import Memory, Saver, background, files, image, sums
from tradewind.train.checkpoint.pace import GivenUpError, Pace
from tradewind.train.distributed import Peers


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk to disturb."""
    return Disk(monkeypatch)


def memory_of(shm: Path, peers: Peers | None = None) -> Memory:
    """The memory of one worker."""
    rank, world = (peers.rank, peers.world) if peers else (0, 1)
    return Memory(shm, rank=rank, world=world, local_rank=rank, local_world=world)


def big(step: int) -> dict[str, Any]:
    """Nine MiB that tell their step."""
    return {"table": torch.full((2000, 1000), float(step)), "layers": [torch.full((333,), step)] * 3}


def started(shm: Path, folder: Path, share: float) -> tuple[Memory, Saver]:
    """The memory of one worker with step 1, and a saver that has begun to write it and may work `share` of the time."""
    memory = memory_of(shm)
    saver = Saver(folder, memory, share=share)
    memory.stage(1, big(1), {})
    assert saver.start(1)
    return memory, saver


def test_what_is_started_becomes_durable(shm: Path, tmp_path: Path) -> None:
    """A started step is written as `save` would have written it, while the next is staged."""
    memory = memory_of(shm)
    saver = Saver(tmp_path, memory)
    memory.stage(1, big(1), states.own(0))
    assert saver.start(1)
    memory.stage(2, big(2), states.own(0))
    memory.stage(3, big(3), states.own(0))
    [saved] = saver.wait()
    assert (saved.step, saved.folder) == (1, tmp_path / "step-000000000001")
    assert saved.bytes == sum(
        path.stat().st_size for path in saved.folder.iterdir() if path.stem != "manifest"
    )
    assert saver.close() == []
    checkpoint.verify(saved.folder)
    other = checkpoint.save(tmp_path / "other", 1, big(1), states.own(0))
    for path in other.iterdir():
        assert path.read_bytes() == (saved.folder / path.name).read_bytes()


def test_saves_that_come_too_fast_are_skipped(shm: Path, tmp_path: Path, disk: Disk) -> None:
    """While one checkpoint is being written others are skipped, not queued, and staging goes on."""
    memory = memory_of(shm)
    saver = Saver(tmp_path, memory)
    disk.open.clear()
    memory.stage(1, big(1), {})
    assert saver.start(1)
    assert disk.reached.acquire(timeout=60)
    for step in range(2, 7):
        memory.stage(step, big(step), {})
        assert not saver.start(step)
        assert saver.poll() == []
    assert len(list(shm.iterdir())) == 3
    disk.open.set()
    assert [saved.step for saved in saver.wait()] == [1]
    assert saver.skipped == 5
    assert [saved.step for saved in saver.save(6)] == [6]
    saver.close()
    assert checkpoint.steps(tmp_path) == [1, 6]
    assert float(checkpoint.load(tmp_path / "step-000000000001").shared["table"].unique()) == 1


def test_a_failed_write_is_raised_on_the_training_thread(shm: Path, tmp_path: Path, disk: Disk) -> None:
    """The next call after a failure raises it, once, and later saves work."""
    memory = memory_of(shm)
    saver = Saver(tmp_path, memory)
    disk.fail_next = 1
    memory.stage(1, big(1), {})
    with pytest.raises(TradewindError, match=r"step 1 was not written: rank 0: .*No space left"):
        saver.save(1)
    assert disk.failures == 1
    assert checkpoint.steps(tmp_path) == []
    memory.stage(2, big(2), {})
    assert [saved.step for saved in saver.save(2)] == [2]
    saver.close()
    with pytest.raises(TradewindError, match="has ended"):
        saver.poll()


def test_a_step_that_is_not_staged_cannot_be_started(shm: Path, tmp_path: Path) -> None:
    """Starting what memory does not hold is refused by the step."""
    memory = memory_of(shm)
    saver = Saver(tmp_path, memory)
    memory.stage(1, big(1), {})
    with pytest.raises(TradewindError, match="step 2 is not staged"):
        saver.start(2)
    saver.close()


def test_old_checkpoints_are_dropped_behind_training(shm: Path, tmp_path: Path) -> None:
    """With `keep` the newest so many stay."""
    memory = memory_of(shm)
    saver = Saver(tmp_path, memory, keep=2)
    for step in range(1, 6):
        memory.stage(step, states.shared(step), {})
        saver.save(step)
    saver.close()
    assert checkpoint.steps(tmp_path) == [4, 5]


def test_resting_ends_when_somebody_waits(shm: Path, tmp_path: Path) -> None:
    """A saver that may work a millionth of the time finishes at once when it is waited for."""
    _, saver = started(shm, tmp_path, share=1e-6)
    assert [saved.step for saved in saver.wait()] == [1]
    saver.close()


def test_what_is_given_up_is_not_written_to_its_end(tmp_path: Path) -> None:
    """Whoever lets go of the writing thread does not wait for the rest of the file, though it may not rest any more."""
    pace = Pace(0.5)
    pace.give_up()
    blocks = iter([memoryview(mmap.mmap(-1, files.BLOCK))])
    with pytest.raises(GivenUpError):
        files.write_blocks(tmp_path / "file", files.BLOCK, blocks, pace=pace)
    assert (tmp_path / "file").stat().st_size == 0


def test_rests_are_for_the_time_on_the_processor() -> None:
    """Work at a third of the time rests twice as long as it has burnt; who only waited need not rest, and is told so."""
    pace = Pace(1 / 3)
    with pace.working():
        burnt_until = time.thread_time() + 0.02
        while time.thread_time() < burnt_until:
            pass
    assert pace.rested_s >= 0.04
    rested_s = pace.rested_s
    with pace.hurried(), pace.working():
        assert sums.of_chunk(b"ab", pace) == sums.of_chunk(b"ab")
    assert pace.rested_s == rested_s


def test_an_image_is_sealed_by_who_writes_it(shm: Path, tmp_path: Path) -> None:
    """Its checksums are computed once, on the way to disk; one that was not written to its end is sealed after all."""
    memory, saver = started(shm, tmp_path, share=1e-6)
    saver.wait()
    written = memory.pin(1)
    assert image.read_seal(written.view, written.header) is not None
    memory.release(written)
    memory.stage(2, big(2), {})
    claimed = memory.pin(2, seals=True)
    memory.settle()
    memory.release(claimed)
    memory.settle()
    assert image.read_seal(claimed.view, claimed.header) is not None
    saver.close()


@pytest.mark.parametrize("world", [2, 3])
def test_workers_commit_together(world: int, shm: Path, tmp_path: Path) -> None:
    """Each worker writes its part from its own memory; every one learns of the commit."""

    def work(peers: Peers) -> list[list[int]]:
        memory = memory_of(shm, peers)
        saver = Saver(tmp_path, memory, peers=peers)
        seen = []
        for step in (1, 2, 3):
            memory.stage(step, big(step), states.own(peers.rank))
            seen.append([saved.step for saved in saver.save(step)])
        saver.close()
        return seen

    assert states.on_all(world, work) == [[[1], [2], [3]]] * world
    for rank in range(world):
        loaded = checkpoint.load(tmp_path / "step-000000000003", rank)
        assert loaded.own["rank"] == rank
        assert float(loaded.shared["table"].unique()) == 3
    assert len(list((tmp_path / "step-000000000003").glob("shared-*.safetensors"))) == world


@pytest.mark.parametrize("seed", range(12))
def test_workers_that_finish_at_different_times_stay_together(seed: int, shm: Path, tmp_path: Path) -> None:
    """Whoever skips, starts and waits when, every checkpoint is whole and nobody waits forever."""
    lockstep, accepted = threading.Barrier(3), [0, 0, 0]

    def work(peers: Peers) -> tuple[list[int], int]:
        chosen, calls = random.Random(seed * 10 + peers.rank), random.Random(seed)
        memory = memory_of(shm, peers)
        saver = Saver(tmp_path, memory, peers=peers)
        saved, pause = [], threading.Event()
        for step in range(1, 30):
            lockstep.wait(60)
            memory.stage(step, states.shared(step), states.own(peers.rank))
            pause.wait(chosen.random() * 0.004)  # the workers drift apart
            accepted[peers.rank] += saver.start(step)
            if calls.random() < 0.1:
                saved += saver.wait()
        saved += saver.wait()
        memory.stage(30, states.shared(30), states.own(peers.rank))
        saved += saver.save(30)
        saver.close()
        return [done.step for done in saved], saver.skipped

    results = states.on_all(3, work)
    assert all(not isinstance(result, Exception) for result in results), results
    steps = results[0][0]
    assert [result[0] for result in results] == [steps] * 3
    assert steps[-1] == 30
    assert [len(steps) + skipped for _, skipped in results] == [30] * 3
    assert checkpoint.steps(tmp_path) == steps
    for step in steps:
        for rank in range(3):
            loaded = checkpoint.load(tmp_path / f"step-{step:012d}", rank)
            assert float(loaded.shared["model"]["weight"][0, 0]) == step
            assert loaded.own["rank"] == rank


def test_one_worker_that_cannot_write_is_heard_by_all(
    shm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When one worker's disk fails nothing is committed, and every worker gets the reason."""
    write = background.write_image

    def on_rank_1(folder: Path, staged: Any, *rest: Any) -> Any:
        if staged.header.rank == 1:
            raise OSError(5, "Input/output error")
        return write(folder, staged, *rest)

    monkeypatch.setattr(background, "write_image", on_rank_1)

    def work(peers: Peers) -> str:
        memory = memory_of(shm, peers)
        saver = Saver(tmp_path, memory, peers=peers)
        memory.stage(1, big(1), {})
        with pytest.raises(TradewindError) as error:
            saver.save(1)
        saver.close()
        return str(error.value)

    for message in states.on_all(3, work):
        assert "rank 1: [Errno 5] Input/output error" in message
    assert list(tmp_path.iterdir()) == []


def test_a_saver_without_its_peers_says_so(shm: Path, tmp_path: Path) -> None:
    """When the others are gone the thread ends, and the training thread is told instead of waiting."""

    class Alone(Peers):
        def gather(self, message: Any) -> list[Any]:
            raise RuntimeError("connection closed by peer")

    memory = memory_of(shm)
    saver = Saver(tmp_path, memory, peers=Alone())
    memory.stage(1, big(1), {})
    saver.start(1)
    with pytest.raises(TradewindError, match="can no longer be written: connection closed by peer"):
        saver.wait()


def test_an_abandoned_write_ends_at_once(shm: Path, tmp_path: Path) -> None:
    """A saver that would rest for weeks is let go of without waiting: nothing is committed, no thread is left."""
    memory, saver = started(shm, tmp_path, share=1e-9)
    saver.abandon()
    assert checkpoint.steps(tmp_path) == []
    assert "tradewind-saver" not in [thread.name for thread in threading.enumerate()]
    assert not any(slot.pins for slot in memory._slots)
    with pytest.raises(TradewindError, match=r"has ended|given up"):
        saver.start(1)


def test_checkpoints_that_cannot_be_dropped_are_no_end(shm: Path, tmp_path: Path) -> None:
    """When an old checkpoint does not go away, that is said once, and what was written counts."""
    memory = memory_of(shm)
    saver = Saver(tmp_path, memory, keep=1)
    for step in (1, 2):
        (tmp_path / f".dropped-step-00000000000{step}-{os.getpid()}" / "held").mkdir(parents=True)
        memory.stage(step, big(step), {})
        saver.start(step)
        if step == 1:
            assert [saved.step for saved in saver.wait()] == [1]
    with pytest.raises(TradewindError, match=r"old checkpoints in .* cannot be dropped"):
        saver.wait()
    assert [saved.step for saved in saver.poll()] == [2]
    assert checkpoint.steps(tmp_path) == [1, 2]
    saver.close()


@pytest.mark.parametrize(
    "size", [0, 1, 4095, 4096, 5 << 20, files.BLOCK, files.BLOCK + 1, 2 * files.BLOCK + 5000]
)
def test_any_size_is_written_exactly(size: int, tmp_path: Path) -> None:
    """Blocks of whole pages become a file of exactly the bytes that were meant, with their checksums."""
    data = random.Random(size).randbytes(size)
    image = memoryview(mmap.mmap(-1, size + 4096))
    image[:] = b"\xff" * len(image)
    image[:size] = data
    entry = files.write_blocks(tmp_path / "file", size, files.blocks_of(image, 0, size))
    assert (tmp_path / "file").read_bytes() == data
    assert entry == files.write_file(tmp_path / "other", data)
