"""Which rank failed first, and with what: 200 injected failures, named by us and by torchrun.

Each case is one run of `bench/peers/failing/train.py` with 2 to 8 ranks, of which one fails: exceptions in the
script, in a module's forward, in a library, in a process of the data loader and in a thread; asserts, imports,
SIGKILL, SIGSEGV, SIGABRT, an exit that the kernel's memory killer leaves, allocations that fail, exit codes, ranks
that sleep or stop until the others' collectives time out, ranks that take long to end, and two that fail one after
the other. The other ranks fail because of it, and report that as they are, wrapped, or by an exit code alone.

An answer is right when it names the rank, and the exception (its type and its message's mark), signal or exit code.
For ranks that hang the rank is enough. With `--resume FILE` every verdict is written down there, and those that
are there are not asked for again. Ours is what `tradewind show` prints of the run; torchrun's is the root cause
in its report of a ChildFailedError, with `@record` on the script's main, as its documentation advises.
"""

import argparse
import dataclasses
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.harness import Figure, Options, main, say

NAME = "first-failure"
CASES = 200
SCRIPT = Path(__file__).parent / "peers" / "failing" / "train.py"
TRADEWIND = (sys.executable, "-c", "from tradewind.cli.main import main; main()")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts", "0")
ROOT_CAUSE = "Root Cause (first observed failure):"
LIMIT_S = 180

KINDS: dict[str, tuple[str, ...]] = {
    "raise": ("ValueError", "{mark}"),
    "raise_from": ("LookupError", "{mark}"),
    "of_a_library": ("JSONDecodeError",),
    "lines": ("RuntimeError", "{mark}"),
    "connection": ("ConnectionResetError", "{mark}"),
    "assert": ("AssertionError", "{mark}"),
    "forward": ("RuntimeError", "shapes cannot be multiplied"),
    "data_worker": ("ValueError", "{mark}"),
    "thread": ("ValueError", "{mark}"),
    "import": ("ModuleNotFoundError",),
    "no_memory": ("RuntimeError", "allocate memory"),
    "kill": ("SIGKILL",),
    "oom_kill": ("SIGKILL",),
    "segv": ("SIGSEGV",),
    "abort": ("SIGABRT",),
    "exit": ("{code}",),
    "os_exit": ("{code}",),
    "sleeps": (),
    "stopped": (),
    "slow_end": ("ValueError", "{mark}"),
    "close": ("ValueError", "{mark}"),
}
"""What a right answer says of each kind of failure, besides its rank."""
IN_A_STEP = ("forward", "data_worker", "sleeps", "stopped", "slow_end", "close")
"""Kinds that need the process group; the others may also come before it."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One failure."""

    kind: str
    world: int
    rank: int
    step: int
    """-1 is before the process group is made."""
    others: str
    other: int
    """The rank that fails by itself as the second, where the kind has one."""
    gap_s: float
    code: int
    mark: str

    def fault(self) -> str:
        """As the script reads it."""
        return json.dumps(dataclasses.asdict(self))

    def is_right(self, answer: "Answer") -> bool:
        """Whether the answer names this failure."""
        told = [text.format(mark=self.mark, code=self.code) for text in KINDS[self.kind]]
        return answer.rank == self.rank and all(re.search(rf"\b{text}\b", answer.text) for text in told)


@dataclasses.dataclass(frozen=True)
class Answer:
    """Whom a launcher names, and what it says of it."""

    rank: int | None
    text: str


def measure(options: Options) -> Mapping[str, Figure]:
    """Every case under `tradewind run` and under torchrun, one after the other."""
    cases = list(draw(len(KINDS) if options.quick else CASES, most=3 if options.quick else 8))
    verdicts: dict[str, list[bool]] = {"tradewind": [], "torchrun": []}
    wrong: Counter[tuple[str, str]] = Counter()
    known = Known(options.extra.resume)
    for number, case in enumerate(cases):
        right = known.of(case) or known.add(case, judge(case))
        for name in verdicts:
            verdicts[name].append(right[name])
            wrong[name, case.kind] += not right[name]
        say(f"{number + 1}/{len(cases)}  " + "  ".join(f"{n} {sum(v)}" for n, v in verdicts.items()))
    for (name, kind), count in sorted((+wrong).items()):
        say(f"{name:<12} {kind:<14} {count} of {sum(case.kind == kind for case in cases)} wrong")
    return {
        "cases": Figure(len(cases), "count", len(cases), len(cases), len(cases)),
        "top1": share(verdicts["tradewind"]),
        "top1_torchrun": share(verdicts["torchrun"]),
    }


class Known:
    """Verdicts on cases, kept in a file from one start of the benchmark to the next."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self._verdicts: dict[str, dict[str, bool]] = dict(map(json.loads, lines))

    def of(self, case: Case) -> dict[str, bool] | None:
        """Who was right about this case, if it was tried."""
        return self._verdicts.get(str(case))

    def add(self, case: Case, right: dict[str, bool]) -> dict[str, bool]:
        """Write down who was right."""
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps([str(case), right]) + "\n")
        return right


def judge(case: Case) -> dict[str, bool]:
    """Who is right about a case; what a wrong one says is printed."""
    right = {}
    for name, ask in (("tradewind", ask_tradewind), ("torchrun", ask_torchrun)):
        with tempfile.TemporaryDirectory(prefix="failing-") as folder:
            answer = ask(case, Path(folder))
        right[name] = case.is_right(answer)
        if not right[name]:
            said = answer.text.strip().replace("\n", " | ")[-200:]
            say(f"{name} is wrong: {case}: it names rank {answer.rank}: {said}")
    return right


def draw(count: int, most: int) -> Iterator[Case]:
    """Cases of every kind in turn, otherwise at random, the same every time."""
    rng = random.Random(6)
    for number, kind in enumerate(itertools.islice(itertools.cycle(KINDS), count)):
        world = rng.randint(2, most)
        rank, other = rng.sample(range(world), 2)
        yield Case(
            kind=kind,
            world=world,
            rank=rank,
            step=rng.randint(0 if kind in IN_A_STEP else -1, 4),
            others=rng.choice(("as_it_is", "as_it_is", "wrap", "log_and_exit")),
            other=other,
            gap_s=rng.choice((0.3, 0.6, 1.2)),
            code=rng.choice((3, 7, 65, 77)),
            mark=f"injected-{number}",
        )


def share(right: Sequence[bool]) -> Figure:
    """The share that was right."""
    value = sum(right) / len(right)
    return Figure(value, "share", value, value, len(right))


def ask_tradewind(case: Case, folder: Path) -> Answer:
    """Run it with `tradewind run` and read `tradewind show`."""
    (folder / "project").mkdir()
    shutil.copy(SCRIPT, folder / "project")
    env = environment(case) | {"TRADEWIND_HOME": str(folder / "home")}
    command = ("run", SCRIPT.name, "--workers", str(case.world), "--max-restarts", "0", "-o", "json")
    call([*TRADEWIND, *command], folder / "project", env)
    shown = json.loads(call([*TRADEWIND, "show", "last", "-o", "json"], folder, env).stdout)
    if not shown["failures"]:
        return Answer(None, f"no failure was seen; the run {shown['run']['state']}")
    first: dict[str, Any] = shown["failures"][0]
    return Answer(first["rank"], f"{first['class']}: {first['exception']}\n{first['text']}")


def ask_torchrun(case: Case, folder: Path) -> Answer:
    """Run it with torchrun and read the root cause that it reports."""
    command = [*TORCHRUN, "--nproc-per-node", str(case.world), "--log-dir", str(folder), str(SCRIPT)]
    report = call(command, folder, environment(case)).stderr.rpartition(ROOT_CAUSE)[2]
    rank = re.search(r"^\s+rank\s+: (\d+)", report, re.MULTILINE)
    return Answer(int(rank[1]) if rank else None, report)


def environment(case: Case) -> dict[str, str]:
    """What both launchers are started with."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("TRADEWIND_")}
    return clean | {"FAULT": case.fault(), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def call(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a launcher to its end; it is meant to fail."""
    return subprocess.run(
        command, cwd=cwd, env=dict(env), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", type=Path, help="where verdicts are kept, to go on with later")


if __name__ == "__main__":
    main(NAME, measure, packages=("torch",), add_flags=add_flags)
