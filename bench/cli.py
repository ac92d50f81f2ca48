"""How long the command lines take to start, as whole processes: ours, `sky --help` and `torchx --help`.

`ratio_sky` and `ratio_torchx` are of the slowest of three command lines of ours that need no cluster: `--help`, `run
--dry-run` of a script in a git repository, and `why --from` a recorded dump. The last two do their work; the peers'
help does none. The ratios of each are beside them, and `run --dry-run` without git. SkyPilot and TorchX are in
environments of their own. All are byte-compiled, as pip leaves what it installs; the first start does it for a checkout.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.harness import Figure, Options, interleave, main, ratio, wall_seconds
from bench.peers.environments import SKY, TORCHX, environment
from tests.launch.why.scenarios import recorded

NAME = "cli"
LINES = {
    "help": "tradewind --help",
    "run": "tradewind run --dry-run",
    "run_no_git": "tradewind run --dry-run, no git",
    "why": "tradewind why --from",
}
STARTS = ("help", "run", "why")


def measure(options: Options) -> Mapping[str, Figure]:
    """Whole-process wall times, interleaved with a bare interpreter's and the peers'."""
    peers = {name: str(environment(name, needs) / name) for name, needs in (SKY, TORCHX)}
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder))
        commands = ours(Path(folder)) | {f"{name} --help": [path, "--help"] for name, path in peers.items()}
        commands["python -c pass"] = [sys.executable, "-c", "pass"]
        contenders = {name: timed(command, Path(folder)) for name, command in commands.items()}
        times = interleave(contenders, 3 if options.quick else max(options.repeats, 15))
    peers_times = {name: times[f"{name} --help"] for name in ("sky", "torchx")}
    mine = {name: times[line] for name, line in LINES.items()}
    mine["slowest"] = max((mine[name] for name in STARTS), key=statistics.median)
    figures = {
        "help_ms": Figure.of([1000 * seconds for seconds in mine["help"]], "ms"),
        "run_ms": Figure.of([1000 * seconds for seconds in mine["run"]], "ms"),
        "why_ms": Figure.of([1000 * seconds for seconds in mine["why"]], "ms"),
        "ratio_python": ratio(mine["help"], times["python -c pass"]),
    }
    for peer, theirs in peers_times.items():
        figures[f"ratio_{peer}"] = ratio(mine["slowest"], theirs)
        figures |= {f"ratio_{peer}_{name}": ratio(mine[name], theirs) for name in LINES}
    return figures


def ours(folder: Path) -> dict[str, list[str]]:
    """What needs no cluster, on a script and a dump in `folder`."""
    command = str(Path(sys.executable).with_name("tradewind"))
    return {
        LINES["help"]: [command, "--help"],
        LINES["run"]: [command, "run", str(folder / "git" / "train.py"), "--dry-run"],
        LINES["run_no_git"]: [command, "run", str(folder / "plain" / "train.py"), "--dry-run"],
        LINES["why"]: [command, "why", "--from", str(folder / "dump.json"), "job/train"],
    }


def write_inputs(folder: Path) -> None:
    """A script in a git repository, one outside of any, and a dump."""
    for name in ("git", "plain"):
        (folder / name).mkdir()
        (folder / name / "train.py").touch()
    subprocess.run(["git", "init", "--quiet", str(folder / "git")], check=True)
    (folder / "dump.json").write_text(json.dumps(recorded.volcano_gang()))


def timed(command: list[str], folder: Path) -> Callable[[], float]:
    """A start of this command, in a home that has nothing; it is tried once, to see that it works."""
    os.environ["TRADEWIND_HOME"] = str(folder / "home")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run(command, check=True, capture_output=True)
    return lambda: wall_seconds(command)


if __name__ == "__main__":
    main(NAME, measure, packages=("cyclopts",))
