"""A host's state in another host's memory: what is taken, what is kept, and what is brought back."""

import hashlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train import states, workers
from tests.train.test_resume import journal
from tradewind import names
from tradewind.errors import IntegrityError, SpecError
from tradewind.train import checkpoint
from tradewind.train.checkpoint import Memory, Rows, copies, wire
from tradewind.train.checkpoint.mapped import Mapped
from tradewind.train.checkpoint.mirror import FAILED, IDLE, SENDING, Mirror, Ring
from tradewind.train.checkpoint.rows import share_of
from tradewind.train.distributed import Peers
from tradewind.train.heal import heal, mirror_of_environment


def settled(mirror: Mirror) -> int:
    """Its state once nothing is under way."""
    if mirror._thread is not None:
        mirror._thread.join(30)
    assert mirror.state != SENDING
    return mirror.state


def held(folder: Path) -> dict[tuple[int, int], list[int]]:
    """Steps and generations that a host holds whole for the host before it, and whose ranks they are."""
    found = [(copies.of(one[0][1]), [header.rank for _, header in one]) for one in copies.held(folder)]
    return {(what.step, what.generation): ranks for what, ranks in found}


class Hosts:
    """Hosts of one worker each, in folders of their own."""

    def __init__(self, shm: Path, count: int = 2) -> None:
        self.folders = [shm / f"host{host}" for host in range(count)]
        self.memories = [self.memory(host) for host in range(count)]
        self.connect()

    def memory(self, host: int) -> Memory:
        """The memory of a host's worker."""
        return Memory(self.folders[host], rank=host, world=len(self.folders), local_rank=0, local_world=1)

    def without(self, lost: int) -> list[Memory]:
        """The memories of workers that go on where one host was lost."""
        self.close()
        shutil.rmtree(self.folders[lost])
        left = [folder for folder in self.folders if folder.exists()]
        self.memories = [
            Memory(folder, rank=rank, world=len(left), local_rank=0, local_world=1, generation=1)
            for rank, folder in enumerate(left)
        ]
        self.mirrors = []
        return self.memories

    def connect(self) -> None:
        """Have those that are left send to each other."""
        addresses = tuple(f"127.0.0.1:{workers.free_port()}" for _ in self.memories)
        self.mirrors = [
            Mirror(memory, Ring(addresses=addresses, own=host, secret="s"))
            for host, memory in enumerate(self.memories)
        ]

    def heal(self, root: Path) -> list[Any]:
        """What those that are left get from each other, with their checkpoints in `root`."""
        self.connect()

        def work(peers: Peers) -> Any:
            return heal(root, self.memories[peers.rank], self.mirrors[peers.rank], peers)

        return states.on_all(len(self.memories), work)

    def stage(self, step: int, failed: bool | None = None, *, cut: bool = False) -> list[int]:
        """Stage a step on all, `cut` over them or alike, and send it unless `failed` is None; what became of it."""
        table = torch.full((600, 1000), float(step)) + torch.arange(600.0)[:, None] * cut
        for host, memory in enumerate(self.memories):
            start, stop = share_of(600, host, len(self.folders))
            rows = Rows(table[start:stop], start, 600) if cut else table
            memory.stage(step, {"table": rows}, states.own(host))
        if failed is not None:
            for mirror in self.mirrors:
                mirror.start(step, failed)
        return [settled(mirror) for mirror in self.mirrors]

    def close(self) -> None:
        """End all threads."""
        for one in (*self.mirrors, *self.memories):
            one.close()


@pytest.fixture
def hosts(shm: Path) -> Iterator[Hosts]:
    """Two hosts; at the end no thread of theirs is left."""
    made = Hosts(shm)
    yield made
    made.close()
    check_no_threads()


@pytest.fixture
def three(shm: Path) -> Iterator[Hosts]:
    """Three."""
    made = Hosts(shm, 3)
    yield made
    made.close()
    check_no_threads()


def check_no_threads() -> None:
    """What served a connection that is closed by now is about to end; nothing else is left."""
    for thread in threading.enumerate():
        if thread.name in ("tradewind-mirror", "tradewind-send"):
            thread.join(30)
            assert not thread.is_alive()


def test_a_lost_image_comes_back_bit_for_bit(hosts: Hosts) -> None:
    """What host 1 staged is held by host 0, and a new host 1 gets it back and loads it."""
    assert hosts.stage(7, failed=False) == [IDLE, IDLE]
    assert [held(folder) for folder in hosts.folders] == [{(7, 0): [1]}, {(7, 0): [0]}]
    (what,) = [copies.of(one[0][1]) for one in copies.own(hosts.folders[1])]
    shutil.rmtree(hosts.folders[1])
    fresh = hosts.memory(1)
    assert fresh.steps() == []
    lost, hosts.memories[1] = hosts.memories[1], fresh
    hosts.mirrors[1].close()
    lost.close()
    hosts.mirrors[1] = Mirror(fresh, hosts.mirrors[1].ring)
    hosts.mirrors[1].fetch(what)
    loaded = fresh.load(7)
    assert float(loaded.shared["table"].unique()) == 7
    assert loaded.own["rank"] == 1
    assert set(copies.find(hosts.folders[0], what)) == {0, 1}


def test_the_newest_whole_step_stays_on_both_sides(hosts: Hosts) -> None:
    """However much is staged since, a step that was sent stays here and there until a later one is whole."""
    hosts.stage(1, failed=False)
    for step in range(2, 7):
        hosts.stage(step)
    for folder, memory in zip(hosts.folders, hosts.memories, strict=True):
        assert (1, 0) in held(folder)
        assert memory.steps() == [1, 5, 6]
    hosts.stage(7, failed=False)
    hosts.stage(8, failed=False)
    for folder, memory in zip(hosts.folders, hosts.memories, strict=True):
        assert set(held(folder)) == {(7, 0), (8, 0)}
        assert len(list((folder / "mirror").iterdir())) == 2
        assert {7, 8} <= set(memory.steps())


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_where_one_host_is_lost_the_others_go_on_from_memory(three: Hosts, lost: int) -> None:
    """Ranks move up by one behind the lost host, whose next one holds just what its own rank had before."""
    three.stage(6, failed=False)
    three.stage(7, failed=False)
    for rank, memory in enumerate(three.without(lost)):
        assert memory.steps()[-1] == 7
        loaded = memory.load(7)
        memory.check()
        assert (loaded.own["rank"], loaded.world) == (rank, 3)
        assert float(loaded.shared["table"].unique()) == 7


@pytest.mark.parametrize("lost", [0, 1])
def test_of_two_hosts_the_one_that_is_left_has_all(hosts: Hosts, lost: int) -> None:
    """A table of which each had half is whole again, and what was sent before the newest step serves if that was not."""
    hosts.stage(7, failed=False, cut=True)
    hosts.stage(8, cut=True)
    (memory,) = hosts.without(lost)
    assert memory.steps() == [7, 8]
    with pytest.raises(IntegrityError):
        memory.load(8)
    loaded = memory.load(7)
    assert loaded.own["rank"] == 0
    assert (loaded.shared["table"].start, loaded.shared["table"].total) == (0, 600)
    assert torch.equal(loaded.shared["table"].local[:, 0], torch.arange(600.0) + 7)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_rows_that_only_another_host_has_are_borrowed(three: Hosts, tmp_path: Path, lost: int) -> None:
    """Of a table cut over three hosts the two that are left have all between them, and each gets what it lacks."""
    three.stage(7, failed=False, cut=True)
    memories = three.without(lost)
    got = three.heal(tmp_path)
    assert {why for _, why in got} == {None}
    # Behind the lost host rows are among the copies; before it they were the next rank's.
    assert [step for step, _ in got] == {0: [None, None], 1: [7, None], 2: [7, 7]}[lost]
    for rank, memory in enumerate(memories):
        loaded = memory.load(7)
        memory.check()
        assert (loaded.own["rank"], loaded.shared["table"].start) == (rank, 300 * rank)
        assert torch.equal(loaded.shared["table"].local[:, 0], torch.arange(300.0) + 300 * rank + 7)
        memory.stage(8, {"table": loaded.shared["table"]}, loaded.own)
        assert not list(memory.folder.glob("borrowed*"))


def test_without_what_was_lost_nothing_is_borrowed(three: Hosts, tmp_path: Path) -> None:
    """Where rows are nowhere any more, that is no error: the run goes on from disk."""
    three.stage(7, cut=True)
    memories = three.without(1)
    got = three.heal(tmp_path)
    assert got == [(None, None), (None, None)]
    with pytest.raises(IntegrityError, match="rows 200 to 300 of table are not here"):
        memories[0].load(7)


def test_nothing_is_borrowed_that_the_disk_has(three: Hosts, tmp_path: Path) -> None:
    """A checkpoint of the same step is read instead."""
    three.stage(7, failed=False, cut=True)
    three.without(1)
    states.save(tmp_path, 7)
    got = three.heal(tmp_path)
    assert got == [(None, None), (None, None)]


def test_an_image_that_is_given_is_not_written_to(hosts: Hosts) -> None:
    """While one is being read by another host, what is staged goes elsewhere."""
    hosts.stage(1)
    (((path, header),),) = copies.own(hosts.folders[0])
    kept = Mapped(path, header)
    files = kept.staged[min(at for _, at, _ in header.files) :]  # Its seal comes when it comes.
    before = hashlib.sha256(files).digest()
    for step in range(2, 6):
        hosts.stage(step)
    assert hashlib.sha256(files).digest() == before
    assert kept.header.step == 1
    with pytest.raises(IntegrityError, match="cannot be read"):
        Mapped(path.with_suffix(".gone"), header)


def test_copies_do_not_serve_the_world_that_made_them(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many workers as before find all they need in their own images, and read nothing else."""
    hosts.stage(7, failed=False)
    monkeypatch.setattr(copies, "held", lambda folder: pytest.fail(f"{folder} was asked for copies"))
    assert hosts.memories[1].load(7).own["rank"] == 1


def test_what_one_host_missed_does_not_replace_what_all_have(hosts: Hosts) -> None:
    """After a step that one host could not send, the step before it stays until another is whole everywhere."""
    hosts.stage(1, failed=False)
    hosts.mirrors[0]._server.close()  # type: ignore[union-attr]
    assert hosts.stage(2, failed=False) == [IDLE, FAILED]
    assert "did not take step 2" in (hosts.mirrors[1].failure() or "")
    assert hosts.mirrors[1].failure() is None
    assert hosts.stage(3, failed=True) == [IDLE, FAILED]
    assert hosts.mirrors[1].failure() is None
    assert [(1, 0) in held(folder) for folder in hosts.folders] == [True, True]
    assert all(1 in memory.steps() for memory in hosts.memories)


def test_strangers_are_refused(hosts: Hosts) -> None:
    """Who does not know the attempt's secret puts nothing into memory and gets nothing out."""
    hosts.stage(1, failed=False)
    image = {"local_rank": 0, "step": 1, "generation": 0, "size": 4096, "keep": []}
    for do in ("take", "give"):
        with wire.connect(hosts.mirrors[0].ring.holder) as connection:
            wire.say(connection, do=do, secret="other", **image)
            assert wire.hear(connection) == {"why": "it is of another attempt"}
    with wire.connect(hosts.mirrors[0].ring.holder) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ConnectionError):
            wire.hear(connection)
    assert set(held(hosts.folders[1])) == {(1, 0)}


def test_damage_on_the_way_is_refused(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of which a bit was flipped on the way is not taken."""
    receive = wire._exactly

    def damaged(connection: Any, buffer: Any) -> Any:
        found = receive(connection, buffer)
        if len(buffer) > 1_000_000:
            buffer[12345] ^= 1
        return found

    monkeypatch.setattr(wire, "_exactly", damaged)
    assert hosts.stage(1, failed=False) == [FAILED, FAILED]
    assert "is not as it was sent" in (hosts.mirrors[0].failure() or "")
    assert [held(folder) for folder in hosts.folders] == [{}, {}]


@pytest.mark.parametrize(("text", "host"), [("a:1,b", 0), ("a:1,:2", 1), ("a:1,b:2", 2)])
def test_addresses_that_cannot_be_are_named(text: str, host: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hosts' addresses must look like is said with what they were."""
    monkeypatch.setenv(names.ENV_PEERS, text)
    monkeypatch.setenv("GROUP_RANK", str(host))
    with pytest.raises(SpecError, match=f"TRADEWIND_PEERS is '{text}' on host {host}"):
        mirror_of_environment(None, Peers())


def test_one_host_has_no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without other hosts there is nothing to send to, and nothing to say."""
    monkeypatch.setenv(names.ENV_PEERS, "127.0.0.1:1")
    assert mirror_of_environment(None, Peers()) == (None, None)


SCRIPT = """
import os, signal
from pathlib import Path
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from safetensors.torch import save_file
from tradewind import train

RANK, SHM, ATTEMPT = os.environ["RANK"], Path(os.environ["SHM"]), os.environ.get("TRADEWIND_ATTEMPT", "0")
# Every worker is a host of its own.
os.environ |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": RANK}
os.environ["TRADEWIND_MEMORY"] = str(SHM / f"host{RANK}")

with train.distributed() as ctx:
    train.seed_everything(7)
    features = torch.randn(96, 8, generator=torch.Generator().manual_seed(1))
    model = nn.Sequential(nn.Linear(8, 17), nn.Tanh(), nn.Dropout(0.3), nn.Linear(17, 1))
    for layer in (model[0], model[3], model):
        fully_shard(layer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batches = train.Batches(96, 12, seed=3, epochs=3)
    loop = train.Loop(model=model, optimizer=optimizer, data=batches, every_steps=1000, max_recompute=1)
    if loop.step == 0:
        torch.manual_seed(11 + ctx.rank)
    for indices in loop:
        if str(loop.step) == os.environ.get("KILL") and ATTEMPT == "0" and ctx.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        loss = (model(features[indices]) - features[indices].sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    whole = {name: value.full_tensor() for name, value in model.state_dict().items()}
    if ctx.rank == 0:
        save_file(whole, "final.safetensors")
"""


@pytest.mark.slow
def test_a_lost_host_is_replaced_from_the_next_ones_memory(tmp_path: Path, shm: Path) -> None:
    """With half of a model lost and nothing on disk, a run does one step again, to bitwise the same weights."""
    calm = workers.run(tmp_path / "calm", 2, script=SCRIPT, SHM=str(shm / "calm"))
    assert [code for code, _ in calm] == [0, 0], calm
    addresses = ",".join(f"127.0.0.1:{workers.free_port()}" for _ in range(2))
    given = {"SHM": str(shm), "KILL": "12", names.ENV_PEERS: addresses}
    first = workers.run(tmp_path / "lost", 2, script=SCRIPT, **given, TRADEWIND_ATTEMPT="0")
    assert first[1][0] == -9
    shutil.rmtree(shm / "host1")
    again = workers.run(tmp_path / "lost", 2, script=SCRIPT, **given, TRADEWIND_ATTEMPT="1")
    assert [code for code, _ in again] == [0, 0], again
    resumes = [e for rank in (0, 1) for e in journal(tmp_path / "lost", rank) if e["kind"] == "resume"]
    assert [resume["tier"] for resume in resumes] == ["memory", "peer"]
    assert resumes[0]["step"] == resumes[1]["step"] >= 11
    assert checkpoint.steps(tmp_path / "lost" / "checkpoints") == [24]
    assert (tmp_path / "lost" / "final.safetensors").read_bytes() == (
        tmp_path / "calm" / "final.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_a_model_cut_over_three_hosts_goes_on_with_two(tmp_path: Path, shm: Path) -> None:
    """With a third of it lost and nothing on disk, the two that are left have it from each other and lose one step."""

    def addresses(count: int) -> str:
        return ",".join(f"127.0.0.1:{workers.free_port()}" for _ in range(count))

    first = workers.run(
        tmp_path, 3, script=SCRIPT, SHM=str(shm), KILL="12", **{names.ENV_PEERS: addresses(3)}
    )
    assert first[1][0] == -9
    shutil.rmtree(shm / "host1")
    (shm / "host2").rename(shm / "host1")
    again = workers.run(
        tmp_path, 2, script=SCRIPT, SHM=str(shm), TRADEWIND_ATTEMPT="1", **{names.ENV_PEERS: addresses(2)}
    )
    assert [code for code, _ in again] == [0, 0], again
    resumes = [e for rank in (0, 1) for e in journal(tmp_path, rank) if e["kind"] == "resume"]
    assert [resume["tier"] for resume in resumes] == ["peer", "memory"]
    assert resumes[0]["step"] == resumes[1]["step"] >= 11
    assert checkpoint.steps(tmp_path / "checkpoints") == [24]
