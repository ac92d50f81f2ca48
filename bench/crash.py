"""Crash-proof commits: a writer killed, a machine without power, a disk that rots; ours and two peers.

Every operation a real writer makes is recorded. Then, before each of them and within each write, the
states the disk may be in are made and restored from: those that a SIGKILL leaves, and those that a
loss of power leaves (see `bench.faults.disk`). A writer process also kills itself at every operation
of a save in turn, and what the kernel then has must be what the model says. Last, single bits of a
committed checkpoint are flipped. A restore is right when it gives exactly the newest state whose
save had returned, or the one being saved.
"""

import collections
import contextlib
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.faults.disk import Disk, Tree, power_cuts, read_tree, torn, write_tree
from bench.faults.record import Op, read_log
from bench.harness import Figure, Options, main, say
from bench.peers.checkpoints.restorer import Restorer

NAME = "crash"
OURS = ("tradewind", "tradewind_background")
PEERS = ("dcp", "torch_checkpointing")
Counts = collections.Counter[str]


@dataclass(frozen=True)
class Effort:
    """How much is tried: steps of a history, draws of a power loss, cuts of a write, bits, torn kills."""

    steps: int
    draws: int
    cuts: int
    bits: int
    tears: Sequence[float]


FULL = Effort(steps=12, draws=2, cuts=4, bits=1000, tears=(0.0, 0.5))
QUICK = Effort(steps=2, draws=1, cuts=1, bits=40, tears=(0.5,))


def measure(options: Options) -> Mapping[str, Figure]:
    """Kill the writer, cut the power and flip bits, at every point and for each contender, and restore."""
    effort = QUICK if options.quick else FULL
    figures: dict[str, Figure] = {}
    for name in (*OURS, *PEERS):
        counts = corpus(name, effort)
        say(f"{name:<20} " + ", ".join(f"{key} {count}" for key, count in sorted(counts.items())))
        suffix = name.removeprefix("tradewind") if name in OURS else f"_{name}"
        figures |= {f"{key}{suffix}": _count(counts[key], counts) for key in REPORTED}
    counts = memory(effort)
    return figures | {f"{key}_memory": _count(counts[key], counts) for key in ("flips", *OF_FLIPS)}


OF_FLIPS = ("undetected", "unnoticed_flips")
REPORTED = (
    "points",
    "corrupt_restores",
    "undetected",
    "lost_commits",
    "lost_on_journal",
    "unnamed_refusals",
    "unnoticed_flips",
    "restorer_deaths",
    "sigkills",
    "kill_states",
    "power_states",
    "flips",
)
"""`points` are crashes: sigkills, kill_states and power_states. Of them, `corrupt_restores` gave values
that were never saved, and `lost_commits` gave less than a save that had returned, `lost_on_journal`
on a file system that is as kind as ext4. Of the flips,
`undetected` gave other values than were saved without a word; `unnoticed_flips` changed no value, and
nothing was said. `unnamed_refusals` passed over a checkpoint without naming a file."""


def _count(value: int, counts: Counts) -> Figure:
    return Figure(value, "count", value, value, counts["points"] + counts["flips"])


def corpus(name: str, effort: Effort) -> Counts:
    """Everything that is tried on one contender."""
    counts: Counts = collections.Counter()
    with tempfile.TemporaryDirectory() as folder, trial(name) as judge:
        for world in (1, 2):
            here = Path(folder, f"world{world}")
            ops = history(name, here, world, effort.steps)
            counts += crashes(ops, here / "root", world, effort, judge)
        tree = read_tree(here / "root")
        counts += flips(tree, *newest(tree), world, effort, judge)
        for tear in effort.tears:
            counts += sigkills(name, Path(folder, f"kills{tear}"), tear, judge)
        counts["restorer_deaths"] = judge.restorer.deaths
    counts["points"] = counts["sigkills"] + counts["kill_states"] + counts["power_states"]
    return counts


class Judge:
    """Restores from states and says what came of it; a state met before is not restored again."""

    def __init__(self, restorer: Restorer, root: Path) -> None:
        self.restorer, self.root = restorer, root
        self._known: dict[int, dict[str, Any]] = {}

    def restore(self, tree: Tree, world: int) -> dict[str, Any]:
        key = hash((world, *sorted(tree.items(), key=lambda item: item[0])))
        if key not in self._known:
            write_tree(tree, self.root)
            self._known[key] = self.restorer.restore(self.root, world)
        return self._known[key]

    def crash(self, tree: Tree, world: int, returned: int | None) -> Counts:
        """What a restore after a crash was, given the newest step whose save had returned."""
        found = self.restore(tree, world)
        counts: Counts = collections.Counter()
        if found["step"] is None:
            counts["lost_commits"] = returned is not None
        elif not found["right"]:
            counts["corrupt_restores"] = 1
        else:
            counts["lost_commits"] = returned is not None and found["step"] < returned
        counts["unnamed_refusals"] = sum(not _names_a_file(text, self.root) for text in found["complaints"])
        return counts


def _names_a_file(complaint: str, root: Path) -> bool:
    return str(root) in complaint


@contextlib.contextmanager
def trial(name: str) -> Iterator[Judge]:
    """A judge with a folder in memory, if there is such a thing."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        restorer = Restorer(name)
        try:
            yield Judge(restorer, Path(folder) / "root")
        finally:
            restorer.close()


def history(name: str, folder: Path, world: int, steps: int) -> list[Op]:
    """The operations of real writer processes that commit these steps."""
    (folder / "root").mkdir(parents=True)
    command = [
        sys.executable,
        "-m",
        "bench.peers.checkpoints.writer",
        "history",
        name,
        str(folder),
        str(steps),
    ]
    ranks = [
        subprocess.Popen(command, env=os.environ | _place(rank, world), stderr=subprocess.PIPE, text=True)
        for rank in range(world)
    ]
    errors = [process.communicate(timeout=120)[1] for process in ranks]
    if any(process.returncode for process in ranks):
        raise RuntimeError(f"the writer of {name} failed:\n" + "\n".join(errors))
    return read_log(folder / "log")


def _place(rank: int, world: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }


def crashes(ops: Sequence[Op], root: Path, world: int, effort: Effort, judge: Judge) -> Counts:
    """Crash before every operation, within every write, and after the last."""
    counts: Counts = collections.Counter()
    disks = [Disk({}, journal=True), Disk({}, journal=False)]
    rng, returned = random.Random(0), None
    for op in [*ops, Op("note", "end")]:
        for killed in _kills(disks[0], op, rng, effort.cuts):
            counts += judge.crash(killed, world, returned) + collections.Counter(kill_states=1)
        for disk in disks:
            for tree in power_cuts(disk, rng, effort.draws):
                verdict = judge.crash(tree, world, returned)
                verdict["lost_on_journal"] = verdict["lost_commits"] * disk.journal
                counts += verdict + collections.Counter(power_states=1)
            disk.apply(op)
        if op.kind == "note" and op.path.startswith("saved "):
            returned = int(op.path.removeprefix("saved "))
    if disks[0].killed() != read_tree(root):
        raise RuntimeError(f"{root}: the log does not make what is there: some writes were not seen")
    return counts


def _kills(disk: Disk, op: Op, rng: random.Random, cuts: int) -> Iterator[Tree]:
    yield disk.killed()
    for part in torn(op, rng, cuts):
        yield disk.killed_in(part)


def sigkills(name: str, folder: Path, tear: float, judge: Judge) -> Counts:
    """A writer that kills itself at every operation of one save in turn."""
    folder.mkdir()
    command = [sys.executable, "-m", "bench.peers.checkpoints.writer", "kills", name, str(folder), str(tear)]
    subprocess.run(command, check=True, stdout=sys.stderr, timeout=300)
    start = read_tree(folder / "start")
    counts: Counts = collections.Counter()
    for here in sorted(folder.glob("[0-9]*"), key=lambda path: int(path.name))[:-1]:
        ops, left = read_log(here / "log"), read_tree(here / "root")
        disk = Disk(start, journal=True)
        for op in ops:
            disk.apply(op)
        if disk.killed() != left:
            raise RuntimeError(f"{here}: the kernel has something else than the model says")
        returned = 3 if any(op.path == "saved 3" for op in ops if op.kind == "note") else 2
        counts += judge.crash(left, 1, returned) + collections.Counter(sigkills=1)
    return counts


def memory(effort: Effort) -> Counts:
    """Flips in our images in shared memory; most of what goes unnoticed is the room between the parts."""
    with tempfile.TemporaryDirectory() as folder, trial("tradewind_memory") as judge:
        command = [sys.executable, "-m", "bench.peers.checkpoints.writer", "images", "tradewind_memory"]
        subprocess.run([*command, folder, "2"], check=True, stdout=sys.stderr, timeout=120)
        tree = read_tree(Path(folder) / "root")
        counts = flips(tree, 1, {path: data for path, data in tree.items() if data}, 2, effort, judge)
    say(f"{'memory':<20} " + ", ".join(f"{key} {count}" for key, count in sorted(counts.items())))
    return counts


def newest(tree: Tree) -> tuple[int, dict[str, bytes]]:
    """The newest checkpoint's step and files."""
    step, folder = max(
        (_number(path), path) for path, data in tree.items() if data is None and "step-" in path
    )
    return step, {path: data for path, data in tree.items() if data and path.startswith(folder + "/")}


def flips(tree: Tree, step: int, files: dict[str, bytes], world: int, effort: Effort, judge: Judge) -> Counts:
    """Flip single bits of a step's files, each drawn evenly over all of their bits."""
    rng = random.Random(1)
    drawn = rng.choices(list(files), weights=[len(data) for data in files.values()], k=effort.bits)
    counts: Counts = collections.Counter(flips=effort.bits)
    for path in drawn:
        damaged = bytearray(files[path])
        bit = rng.randrange(8 * len(damaged))
        damaged[bit // 8] ^= 1 << bit % 8
        found = judge.restore(tree | {path: bytes(damaged)}, world)
        if found["step"] == step:
            said = bool(found["complaints"])
            counts["undetected"] += not said and not found["right"]
            counts["unnoticed_flips"] += not said and found["right"]
        else:
            counts["corrupt_restores"] += found["step"] is not None and not found["right"]
            counts["unnamed_refusals"] += not any(path in text for text in found["complaints"])
    return counts


def _number(folder: str) -> int:
    return int(folder.rpartition("step-")[2])


if __name__ == "__main__":
    main(NAME, measure, packages=("torch",))
