"""How long the command lines take to start, as whole processes: ours, `sky --help` and `torchx --help`.

`ratio_sky` and `ratio_torchx` compare help with help. The others set commands of ours that do their work, `run
--dry-run` of a script and `why --from` a recorded dump, against the peers' help, which does none. SkyPilot and TorchX
are in environments of their own.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.harness import Figure, Options, interleave, main, ratio, wall_seconds
from bench.peers.environments import SKY, TORCHX, environment

NAME = "cli"
DUMP = {
    "kind": "List",
    "items": [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "train", "namespace": "default", "uid": "1"},
            "spec": {"completions": 1, "parallelism": 1},
            "status": {"active": 1},
        }
    ],
}


def measure(options: Options) -> Mapping[str, Figure]:
    """Whole-process wall times, interleaved with a bare interpreter's and the peers'."""
    peers = {name: str(environment(name, needs) / name) for name, needs in (SKY, TORCHX)}
    with tempfile.TemporaryDirectory() as folder:
        commands = ours(Path(folder)) | {f"{name} --help": [path, "--help"] for name, path in peers.items()}
        commands["python -c pass"] = [sys.executable, "-c", "pass"]
        contenders = {name: timed(command, Path(folder)) for name, command in commands.items()}
        times = interleave(contenders, 3 if options.quick else max(options.repeats, 15))
    helped, run, why = (times[name] for name in ours(Path()))
    sky, torchx = times["sky --help"], times["torchx --help"]
    return {
        "help_ms": Figure.of([1000 * seconds for seconds in helped], "ms"),
        "ratio_python": ratio(helped, times["python -c pass"]),
        "ratio_sky": ratio(helped, sky),
        "ratio_torchx": ratio(helped, torchx),
        "ratio_sky_run": ratio(run, sky),
        "ratio_torchx_run": ratio(run, torchx),
        "ratio_sky_why": ratio(why, sky),
        "ratio_torchx_why": ratio(why, torchx),
    }


def ours(folder: Path) -> dict[str, list[str]]:
    """What needs no cluster, on a script and a dump in `folder`."""
    command = str(Path(sys.executable).with_name("tradewind"))
    return {
        "tradewind --help": [command, "--help"],
        "tradewind run --dry-run": [command, "run", str(folder / "train.py"), "--dry-run"],
        "tradewind why --from": [command, "why", "--from", str(folder / "dump.json"), "job/train"],
    }


def timed(command: list[str], folder: Path) -> Callable[[], float]:
    """A start of this command, in a home that has nothing; it is tried once, to see that it works."""
    (folder / "train.py").touch()
    (folder / "dump.json").write_text(json.dumps(DUMP))
    os.environ["TRADEWIND_HOME"] = str(folder / "home")
    subprocess.run(command, check=True, capture_output=True)
    return lambda: wall_seconds(command)


if __name__ == "__main__":
    main(NAME, measure, packages=("cyclopts",))
