"""State in shared memory: what was staged comes back, whatever dies, and nothing torn is offered."""

import random
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train import states, workers
from tradewind.errors import IntegrityError, TradewindError
from tradewind.train.checkpoint import Memory, Rows, pages
from tradewind.train.checkpoint import memory as memory_module
from tradewind.train.checkpoint.image import SUFFIX, Header


def host(shm: Path, world: int = 2, generation: int = 0) -> list[Memory]:
    """The memories of all workers of a world on one host."""
    return [
        Memory(shm, rank=rank, world=world, local_rank=rank, local_world=world, generation=generation)
        for rank in range(world)
    ]


def stage(memories: list[Memory], step: int, value: float | None = None) -> None:
    """Have all workers stage a state that tells its step, or another value."""
    for memory in memories:
        memory.stage(
            step, states.shared(step if value is None else int(value)), states.own(memory.worker.rank)
        )


def weight(memory: Memory, step: int) -> float:
    """What the weight of a staged step begins with: the step it was made at."""
    return float(memory.load(step).shared["model"]["weight"][0, 0])


def big(step: int) -> dict[str, Any]:
    """Eleven MiB in tensors of many sizes, all full of the step."""
    sizes = {"table": (1024, 1000), "dense": (700, 700), "bias": (999,), "wide": (3, 1 << 20)}
    return {name: torch.full(size, step, dtype=torch.float32) for name, size in sizes.items()} | {
        "half": torch.full((12345,), step, dtype=torch.bfloat16)
    }


@pytest.mark.parametrize("world", [1, 2, 3])
def test_what_was_staged_comes_back_to_every_worker(world: int, shm: Path) -> None:
    """A process that starts anew finds the newest steps, the shared state whole, and its own."""
    memories = host(shm, world)
    for step in (1, 2, 3):
        stage(memories, step)
    memories = host(shm, world)
    for rank, memory in enumerate(memories):
        assert memory.steps() == [2, 3]
        loaded = memory.load(3)
        assert (loaded.step, loaded.world) == (3, world)
        assert torch.equal(loaded.shared["model"]["weight"], states.shared(3)["model"]["weight"])
        assert torch.equal(loaded.shared["model"]["tied"], states.shared(3)["model"]["tied"])
        assert loaded.shared["optimizer"]["param_groups"] == [{"betas": (0.9, 0.999)}]
        assert torch.equal(loaded.own["random"], states.own(rank)["random"])
        assert weight(memory, 2) == 2


@pytest.mark.parametrize("world", [2, 4])
def test_the_workers_of_a_host_divide_the_bytes(world: int, shm: Path) -> None:
    """Each copies about its share of what all hold alike, of one huge tensor too, and together all."""
    memories = host(shm, world)
    for memory in memories:
        memory.stage(1, big(1), {})
    total = sum(tensor.nbytes for tensor in big(1).values())
    sizes = [sum(size for *_, size in memory.pin(1).header.files) for memory in memories]
    assert total <= sum(sizes) <= total + world * 4096
    assert max(sizes) < 1.3 * total / world
    loaded = memories[-1].load(1).shared
    assert all(torch.equal(loaded[name], tensor) for name, tensor in big(1).items())


def test_hosts_are_whole_each_for_itself(shm: Path) -> None:
    """On two hosts of two workers each host's folder alone has everything but the others' own."""
    here, there = shm / "a", shm / "b"
    for rank in range(4):
        place = {"rank": rank, "world": 4, "local_rank": rank % 2, "local_world": 2}
        memory = Memory(here if rank < 2 else there, **place)  # type: ignore[arg-type]
        memory.stage(1, big(1), states.own(rank))
        memory.close()
    for path, rank in ((here, 1), (there, 2)):
        memory = Memory(path, rank=rank, world=4, local_rank=rank % 2, local_world=2)
        loaded = memory.load(1)
        assert all(torch.equal(loaded.shared[name], tensor) for name, tensor in big(1).items())
        assert loaded.own["rank"] == rank
    with pytest.raises(IntegrityError, match="rank 3's own state"):
        Memory(here, rank=3, world=4, local_rank=1, local_world=2).load(1)
    for path in (here, there):
        Memory(path, rank=0, world=1, local_rank=0, local_world=1).clear()
        path.rmdir()


def test_a_step_that_one_worker_lacks_is_not_offered(shm: Path) -> None:
    """Workers may be a step apart: the newest step that all have staged is the newest."""
    memories = host(shm)
    stage(memories, 1)
    stage(memories, 2)
    stage(memories[:1], 3)
    assert memories[1].steps() == [2]
    with pytest.raises(IntegrityError, match=r"no complete step 3; it has \[2\]"):
        memories[0].load(3)
    stage(memories[1:], 3)
    assert memories[1].steps() == [2, 3]


def test_training_goes_on_from_an_earlier_step(shm: Path) -> None:
    """What was staged beyond the step that training went back to is forgotten, on disk and off."""
    memories = host(shm)
    for step in (7, 8):
        stage(memories, step)
    memories = host(shm, generation=1)
    stage(memories, 8, value=80)
    assert memories[0].steps() == [7, 8]
    assert weight(memories[0], 8) == 80
    stage(memories, 3)
    assert memories[0].steps() == [3]


def test_the_step_resumed_from_outlives_the_next_stage(shm: Path) -> None:
    """When only one worker had the newest step, staging it again keeps the one before until it is done."""
    memories = host(shm)
    stage(memories, 1)
    stage(memories, 2)
    stage(memories[:1], 3)
    memories = host(shm, generation=1)
    stage(memories[:1], 3)
    assert memories[1].steps() == [2]


def test_the_step_resumed_from_may_be_staged_again(shm: Path) -> None:
    """Staging the very step that was loaded does not give up what was loaded before it is done."""
    memories = host(shm)
    stage(memories, 1)
    stage(memories, 2)
    memories = host(shm, generation=1)
    for memory in memories:
        memory.load(2)
    stage(memories[:1], 2)
    assert memories[0].steps()[-1] == 2
    stage(memories[1:], 2)
    stage(memories, 3)
    assert memories[0].steps() == [2, 3]


def test_generations_do_not_mix(shm: Path) -> None:
    """A step half staged by one start of the workers and half by the next is no step."""
    first = host(shm)
    stage(first, 1)
    stage(first, 2)
    stage(first[:1], 3)
    stage(host(shm, generation=1)[1:], 3)
    assert first[0].steps() == [2]


def meaning(header: Header) -> list[range]:
    """Where in an image bytes have a meaning: between them there is padding."""
    seal = range(header.seal_at, header.seal_at + 16)
    return [range(20), range(64, 200), seal, *(range(at, at + size) for _, at, size in header.files)]


@pytest.mark.parametrize("make", [states.shared, big], ids=["small", "big"])
def test_no_damaged_byte_is_loaded(make: Any, shm: Path) -> None:
    """Wherever a sealed image is flipped, it is refused, or what is loaded is as it was staged."""
    memory = Memory(shm, rank=0, world=1, local_rank=0, local_world=1)
    memory.stage(1, make(1), {"some": "text"})
    memory.settle()
    path = shm / f"local0-0{SUFFIX}"
    whole, chosen, refused, seal_flips = path.read_bytes(), random.Random(0), 0, 0
    for part in meaning(memory.pin(1).header):
        for at in chosen.sample(part, min(len(part), 30)):
            flip = chosen.randrange(1, 256)
            change(path, at, flip)
            try:
                loaded = memory.load(1)
                memory.check()
                assert str(loaded.shared) == str(make(1)), at
                seal_flips += 1
            except IntegrityError:
                refused += 1
            change(path, at, flip)
            if memory.steps() != [1]:  # refused for good
                with path.open("r+b") as file:
                    file.write(whole)
    assert seal_flips == 16
    assert refused > 100
    memory.load(1)


def change(path: Path, at: int, flip: int) -> None:
    """Flip bits of one byte; twice is not at all."""
    with path.open("r+b") as file:
        file.seek(at)
        was = file.read(1)[0]
        file.seek(at)
        file.write(bytes([was ^ flip]))


def test_damage_is_named(shm: Path) -> None:
    """A flipped byte in a tensor is refused with the image and the file in it."""
    memory = Memory(shm, rank=0, world=1, local_rank=0, local_world=1)
    memory.stage(1, big(1), {})
    memory.settle()
    name, at, size = memory.pin(1).header.files[2]
    assert name == "shared-00000-of-00001.safetensors"
    change(shm / f"local0-0{SUFFIX}", at + size - 1, 1)
    memory.load(1)
    with pytest.raises(IntegrityError, match=rf"local0-0.*is damaged: {name}"):
        memory.stage(2, big(2), {})
    assert memory.steps() == []


def test_the_workers_verify_together(shm: Path) -> None:
    """Damage in one worker's image is found by the worker whose share it is, and the step before is next."""
    for step in (1, 2):
        for memory in host(shm):
            memory.stage(step, big(step), {})
            memory.settle()
    before, after = host(shm), host(shm, generation=1)
    _, at, size = before[1].pin(2).header.files[2]
    path = next(slot.path for slot in before[1]._slots if slot.header and slot.header.step == 2)
    change(path, at + size - 1, 1)
    for memory in after:
        assert memory.load(2).step == 2
    after[0].check()
    with pytest.raises(IntegrityError, match="local1-"):
        after[1].check()
    assert after[0].steps() == [1]
    assert float(after[0].load(1).shared["bias"][0]) == 1


def test_changing_what_was_loaded_is_no_damage(shm: Path) -> None:
    """Verification looks at what was staged, not at what the process has made of it meanwhile."""
    memory = Memory(shm, rank=0, world=1, local_rank=0, local_world=1)
    memory.stage(1, big(1), {})
    memory.settle()
    for tensor in memory.load(1).shared.values():
        tensor.zero_()
    memory.check()
    assert float(memory.load(1).shared["bias"][0]) == 1
    memory.check()
    assert memory.steps() == [1]


def test_what_was_loaded_stays_as_it_was(shm: Path) -> None:
    """Staging goes on under loaded tensors, and changing them changes nothing staged."""
    memories = host(shm)
    stage(memories, 1)
    loaded = memories[0].load(1)
    held = loaded.shared["model"]["weight"]
    for step in range(2, 8):
        stage(memories, step)
    assert float(held[0, 0]) == 1
    assert len(list(shm.iterdir())) <= 6
    newest = memories[0].load(7).shared["model"]["weight"]
    newest.zero_()
    assert weight(memories[1], 7) == 7


def test_a_pinned_image_is_not_overwritten(shm: Path) -> None:
    """While an image is being written to disk, staging goes on and still keeps the step before."""
    memory = Memory(shm, rank=0, world=1, local_rank=0, local_world=1)
    memory.stage(1, big(1), {})
    memory.stage(2, big(2), {})
    pinned = memory.pin(2)
    before = bytes(pinned.view)
    for step in range(3, 9):
        memory.stage(step, big(step), {})
        assert memory.steps() == sorted({2, step - 1, step})
    memory.settle()
    at = pinned.header.seal_at
    assert bytes(pinned.view)[:64] == before[:64]
    assert bytes(pinned.view)[at + 4096 :] == before[at + 4096 :]
    memory.release(pinned)
    memory.stage(9, big(9), {})
    assert memory.steps() == [7, 8, 9]
    with pytest.raises(TradewindError, match="step 2 is not staged"):
        memory.pin(2)


def test_state_may_change_its_form(shm: Path) -> None:
    """Tensors may grow, come and go, and change their type or memory between two stages."""
    memory = Memory(shm, rank=0, world=1, local_rank=0, local_world=1)
    grown = [
        {"a": torch.zeros(3)},
        {"a": torch.ones(3)},
        {"a": torch.ones(3), "b": torch.ones(300_000)},
        {"a": torch.ones(3, dtype=torch.float64), "b": torch.zeros(300_000)},
        {"a": [1.5] * 5000, "b": {"c": torch.ones(2, 2).t()}},
        {"b": torch.tensor(4)},
    ]
    for step, state in enumerate(grown):
        memory.stage(step, state, {})
        assert str(memory.load(step).shared) == str(state)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 3), (4, 2)])
def test_another_number_of_workers_takes_over(before: int, after: int, shm: Path) -> None:
    """State staged by N workers of a host is loaded by M, tables cut over the workers included."""
    table = torch.arange(70.0).reshape(10, 7)
    for memory in host(shm, before):
        rank = memory.worker.rank
        start, stop = rank * 10 // before, (rank + 1) * 10 // before
        shared = {"rows": Rows(table[start:stop], start, 10), **big(1)}
        memory.stage(1, shared, states.own(rank))
    tables = []
    for memory in host(shm, after):
        loaded = memory.load(1)
        assert loaded.own["rank"] == (memory.worker.rank if memory.worker.rank < before else 0)
        assert torch.equal(loaded.shared["wide"], big(1)["wide"])
        tables.append(loaded.shared["rows"])
    assert torch.equal(torch.cat([rows.local for rows in tables]), table)
    assert [rows.start for rows in tables] == [min(10, -(-10 // after) * rank) for rank in range(after)]


def test_what_a_larger_world_left_is_freed(shm: Path) -> None:
    """After a shrink the images of workers that are no more go, once nobody may need them."""
    for memory in host(shm, 3):
        memory.stage(1, states.shared(1), {})
        memory.close()  # a worker that is no more makes no further images
    memories = host(shm, 2, generation=1)
    stage(memories, 2)
    assert memories[0].steps() == [1, 2]
    stage(memories, 3)
    assert sorted(path.name[:6] for path in shm.iterdir()) == ["local0"] * 2 + ["local1"] * 2
    assert memories[0].steps() == [2, 3]


def test_a_full_file_system_is_an_error_not_a_crash(shm: Path) -> None:
    """When there is no room the worker is told, and what was staged before is still there."""
    memory = Memory(shm, rank=0, world=1, local_rank=0, local_world=1)
    memory.stage(1, states.shared(1), {})
    memory.settle()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(TradewindError, match=r"local0-1.* cannot be made: File too large"):
            memory.stage(2, big(2), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert memory.steps() == [1]
    memory.stage(2, big(2), {})
    assert memory.steps() == [1, 2]


def test_clear_removes_all(shm: Path) -> None:
    """After `clear` nothing is left, and staging begins anew."""
    memories = host(shm)
    stage(memories, 1)
    memories[1].close()
    memories[0].clear()
    assert list(shm.iterdir()) == []
    assert memories[0].steps() == []
    memories = host(shm)
    stage(memories, 5)
    assert memories[1].steps() == [5]


KILLED_AT_LINES = """
import os, shutil, signal, sys
from pathlib import Path
import torch
from tests.train import states
from tradewind.train.checkpoint import Memory, copying, image, layout, memory, slot

WATCHED = {module.__file__ for module in (copying, image, layout, memory, slot)}
template, root = Path(sys.argv[1], "template"), Path(sys.argv[1], "root")

def one(shm):
    return Memory(shm, rank=0, world=1, local_rank=0, local_world=1)

def killed_at(line):
    child = os.fork()
    if child == 0:
        staging = one(root)
        left = [line]
        def trace(frame, event, argument):
            if frame.f_code.co_filename not in WATCHED:
                return None
            if event == "line":
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace
        sys.settrace(trace)
        staging.stage(3, states.shared(3), states.own(0))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

before = one(template)
before.stage(1, states.shared(1), states.own(0)); before.stage(2, states.shared(2), states.own(0))
line, newest = 1, set()
while True:
    shutil.copytree(template, root)
    killed = killed_at(line)
    after = one(root)
    for step in after.steps():
        assert float(after.load(step).shared["model"]["weight"][0, 0]) == step, line
    newest.add(step)
    after.stage(4, states.shared(4), states.own(0))
    assert after.steps()[-1] == 4
    after.close()
    shutil.rmtree(root)
    if not killed:
        break
    line += 1
print(line, sorted(newest))
"""

KILLED_IN_COPY = """
import multiprocessing, os, random, shutil, signal, sys, time
from pathlib import Path
import torch
from tests.train.test_memory import big
from tradewind.train.checkpoint import Memory

root, context = Path(sys.argv[1]), multiprocessing.get_context("fork")
torch.set_num_threads(1)

def train(rank, barrier, begun, start):
    memory = Memory(root, rank=rank, world=2, local_rank=rank, local_world=2)
    for step in range(start, 10**9):
        barrier.wait()
        begun[rank] = step
        memory.stage(step, big(step % 128), {"rank": rank})

def one_trial(chosen):
    barrier, begun = context.Barrier(2), context.Array("q", 2, lock=False)
    start = Memory(root, rank=0, world=2, local_rank=0, local_world=2).steps()[-1:]
    start = start[0] + 1 if start else 1
    both = [context.Process(target=train, args=(rank, barrier, begun, start)) for rank in range(2)]
    for process in both:
        process.start()
    while begun[0] < start + chosen.choice([1, 1, 2, 3]):
        pass
    time.sleep(chosen.random() * 0.01)  # anywhere in a stage
    for process in chosen.sample(both, 2):
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    memory = Memory(root, rank=0, world=2, local_rank=0, local_world=2)
    step = memory.steps()[-1]
    assert step in (begun[0] - 1, begun[0]), (step, list(begun))
    assert step in (begun[1] - 1, begun[1]), (step, list(begun))
    for offered in memory.steps():
        for tensor in memory.load(offered).shared.values():
            assert bool((tensor == offered % 128).all()), offered
    return step == max(begun)

chosen = random.Random(0)
ended = [one_trial(chosen) for _ in range(25)]
print("finished", sum(ended), "torn", len(ended) - sum(ended))
"""


def script(text: str, shm: Path) -> str:
    """Run a script that kills processes, and return what it printed."""
    env = workers.environment(0, 1, 0)
    env["PYTHONPATH"] += f":{Path(__file__).parents[2]}"
    command = [sys.executable, "-c", text, str(shm)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_killed_at_any_line_the_step_before_is_there(tmp_path: Path) -> None:
    """After SIGKILL at each line of staging in turn, the newest step that is offered is whole."""
    lines, newest = script(KILLED_AT_LINES, tmp_path).split(maxsplit=1)
    assert int(lines) > 150
    assert newest.strip() == "[2, 3]"


@pytest.mark.slow
def test_killed_in_mid_copy_the_newest_common_step_is_there(shm: Path) -> None:
    """Two workers in lockstep killed at any instant leave a whole step, at most one behind."""
    words = script(KILLED_IN_COPY, shm).split()
    assert int(words[1]) + int(words[3]) == 25
    assert int(words[3]) > 0


@pytest.mark.parametrize("granted", [True, False])
def test_pages_are_locked_once_for_each_mapping_and_unlocked_before_it_goes(
    granted: bool, shm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for state on a GPU: slots that grow, that are let go of, and a driver that refuses, which is not asked again."""
    locked: list[tuple[int, int]] = []
    known: set[int] = set()

    def lock(found: Any, gpu: torch.device) -> bool:
        assert gpu == torch.device("cuda:1")
        assert found.ctypes.data not in known
        locked.append((found.ctypes.data, found.nbytes))
        known.update([found.ctypes.data] if granted else [])
        return granted

    monkeypatch.setattr(memory_module, "gpus_of", lambda tensors: {torch.device("cuda:1")})
    monkeypatch.setattr(pages, "lock", lock)
    monkeypatch.setattr(pages, "unlock", lambda found: known.remove(found.ctypes.data))
    for generation in range(2):
        (memory,) = host(shm, 1, generation)
        for step in range(1, 7):
            more = {"more": torch.zeros(1 << 20)} if step > 3 else {}
            memory.stage(10 * generation + step, {"model": big(step) | more})
            memory.settle()
        # Two slots, which grow once; whoever comes next finds two large ones.
        assert len(locked) == 4 + 2 * generation
        memory.close()
        assert not known
    assert len({size for _, size in locked}) == 2
