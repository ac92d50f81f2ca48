"""Two hundred seeded schedules of kills, stops, SIGTERMs and resizes on real training: what harm they do.

It keeps its place: an interrupted benchmark goes on where it was, as long as the code is the same.
`make chaos` is this with `--place .chaos/results.jsonl`.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from bench.harness import Figure, Options, main, say
from tests.chaos import drive

NAME = "chaos"
SCHEDULES = 200
QUICK = 4
ROOT = Path(__file__).parents[1]
CODE = ("src/tradewind", "tests/chaos")


class Place:
    """What is known already, one JSON object a line: outcomes by seed, calm runs by number of workers."""

    def __init__(self, path: Path, code: str) -> None:
        self.path, self.code = path, code
        self.outcomes: dict[int, drive.Outcome] = {}
        self.calm: dict[int, str] = {}
        for line in path.read_bytes().splitlines() if path.exists() else ():
            # A line torn by an interruption, or of other code, is done again.
            with contextlib.suppress(msgspec.DecodeError):
                self._take(msgspec.json.decode(line, type=Line))

    def _take(self, line: "Line") -> None:
        if line.code == self.code and line.outcome is not None:
            self.outcomes[line.outcome.seed] = line.outcome
        elif line.code == self.code:
            self.calm[line.world] = line.weights

    def add(self, **fields: object) -> None:
        """Keep one more result."""
        line = Line(code=self.code, **fields)  # type: ignore[arg-type]
        self._take(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One result of this code: an outcome, or the digest that a calm run of `world` workers ends with."""

    code: str
    outcome: drive.Outcome | None = None
    world: int = 0
    weights: str = ""


def digest_of_code(root: Path = ROOT) -> str:
    """The code that is being tried, and the code that tries it."""
    digest = hashlib.sha256()
    for folder in CODE:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def measure(options: Options) -> Mapping[str, Figure]:
    """Carry out the schedules that are not in the place file yet, and sum up what all of them did."""
    count = options.extra.schedules or (QUICK if options.quick else SCHEDULES)
    with workshop(options.extra.place) as (place, folder):
        for seed in range(count):
            if seed not in place.outcomes:
                place.add(outcome=carry_out(seed, place, folder))
            say(line_about(place.outcomes[seed], place))
        outcomes = [place.outcomes[seed] for seed in range(count)]
        BAD.extend(outcome.seed for outcome in outcomes if is_bad(outcome, place))
        return figures(outcomes, place)


BAD: list[int] = []
"""Seeds of schedules that did harm; any makes the command fail."""


@contextlib.contextmanager
def workshop(path: str | None) -> Iterator[tuple[Place, Path]]:
    """The place file, one that is thrown away when none is named, and a folder for the runs' files."""
    with tempfile.TemporaryDirectory(prefix="tradewind-chaos-") as folder:
        yield Place(Path(path or f"{folder}/results.jsonl"), digest_of_code()), Path(folder)


def carry_out(seed: int, place: Place, folder: Path) -> drive.Outcome:
    """One schedule; before it, the calm run that it is compared with, if there was none yet."""
    world, _ = drive.plan(seed)
    if world not in place.calm:
        with home(folder / f"calm{world}") as place_of_run:
            place.add(world=world, weights=drive.undisturbed(world, place_of_run))
    with home(folder / f"seed{seed}") as place_of_run:
        return drive.disturb(seed, place_of_run)


@contextlib.contextmanager
def home(folder: Path) -> Iterator[Path]:
    """A folder with a home of its own, for as long as it lasts."""
    before = {name: os.environ.pop(name, None) for name in ("TRADEWIND_HOME", "TRADEWIND_STORE")}
    folder.mkdir()
    os.environ["TRADEWIND_HOME"] = str(folder / "home")
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        del os.environ["TRADEWIND_HOME"]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def differs(outcome: drive.Outcome, place: Place) -> bool:
    """Whether a run that kept its number of workers ended with other bits than a calm one, or did not end."""
    if outcome.state != "succeeded":
        return True
    return not outcome.resized and outcome.weights != place.calm[outcome.worlds[0]]


def is_bad(outcome: drive.Outcome, place: Place) -> bool:
    return differs(outcome, place) or outcome.lost > 0 or outcome.repeated > 0


def line_about(outcome: drive.Outcome, place: Place) -> str:
    done = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.injected.items())) or "nothing"
    again = max(outcome.recomputed, default=0)
    verdict = "BAD" if is_bad(outcome, place) else "ok"
    worlds = " then ".join(map(str, outcome.worlds))
    return (
        f"seed {outcome.seed:<4} {verdict:<4} {outcome.state:<10} {worlds} workers: {done}; "
        f"{again} steps again, {outcome.wall_s:.0f} s"
    )


def figures(outcomes: list[drive.Outcome], place: Place) -> dict[str, Figure]:
    """Sums over the schedules; low and high are the least and the most of one schedule."""
    again = [max(outcome.recomputed, default=0) for outcome in outcomes]
    return {
        "schedules": Figure(len(outcomes), "count", len(outcomes), len(outcomes), len(outcomes)),
        "faults": total([sum(outcome.injected.values()) for outcome in outcomes]),
        "runs_unfinished": total([outcome.state != "succeeded" for outcome in outcomes]),
        "weights_differ": total([differs(outcome, place) for outcome in outcomes]),
        "weights_compared": total([not outcome.resized for outcome in outcomes]),
        "samples_lost": total([outcome.lost for outcome in outcomes]),
        "samples_repeated": total([outcome.repeated for outcome in outcomes]),
        "steps_recomputed_max": Figure(max(again), "steps", min(again), max(again), len(again)),
        "schedule_s": Figure.of([outcome.wall_s for outcome in outcomes], "s"),
    }


def total(values: list[int] | list[bool]) -> Figure:
    return Figure(sum(values), "count", min(values), max(values), len(values))


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--schedules", type=int, default=0, help=f"how many (default {SCHEDULES}; quick {QUICK})"
    )
    parser.add_argument("--place", help="file that keeps what is done, so that it can be interrupted")


if __name__ == "__main__":
    # Ended by SIGTERM as by Ctrl-C: the run under way is ended too, and its files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main(NAME, measure, packages=("torch",), add_flags=add_flags)
    sys.exit(f"schedules that did harm: {BAD}" if BAD else 0)
