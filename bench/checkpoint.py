"""Checkpoints of 2 GB on two ranks: how long training stands still, and how fast state comes back.

The state is alike on both ranks, as in data-parallel training, where ours divides it between them; as
`sharded`, each rank has a half of its own, and nobody can save a copy. A stall ends when the trainer may change its tensors again, not when a call returns. Contenders are
torch_checkpointing 0.1.1 and PyTorch's DCP with both of its asynchronous checkpointers; each runs in
fresh processes, one after the other, round by round. Saves are flushed to the disk, but for
torch_checkpointing, which does not flush. Files are loaded once they are in the page cache, and, as
`cold`, when they are on the disk alone; each rank's tensors are there, and get the values.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.harness import Figure, Options, main, ratio, say

NAME = "checkpoint"
RANKS = 2
LIMIT_S = 180
TRIES = 3
"""Of a peer, some of whose processes now and then do not end; ours gets one."""
BACKGROUND = ("tradewind", "torch_checkpointing", "dcp_thread", "dcp_process")
LAYOUTS = {"alike": "", "sharded": "_sharded"}
"""How the state lies on the ranks, and what that adds to a figure's name."""
Rounds = dict[tuple[str, str], list[dict[str, list[float]]]]


@dataclass(frozen=True)
class Size:
    """Bytes of state, and rows of the embedding table."""

    bytes: int
    rows: int


FULL = Size(bytes=2 << 30, rows=1_000_000)
QUICK = Size(bytes=32 << 20, rows=20_000)


def measure(options: Options) -> Mapping[str, Figure]:
    """Stalls, durable saves, loads, step times and delta sizes of ours beside torch_checkpointing and DCP."""
    size = QUICK if options.quick else FULL
    rounds: Rounds = {(name, layout): [] for layout in LAYOUTS for name in BACKGROUND}
    rounds["foreground", "sharded"] = []
    for number in range(options.repeats):
        for (name, layout), found in rounds.items():
            found.append(run_patiently(name, layout, size, options.extra.folder))
            say(f"round {number + 1}/{options.repeats}  {name:<20} {layout:<8} {_told(found[-1])}")
    figures = stalls(rounds) | disk(rounds["foreground", "sharded"]) | inflation(rounds)
    return figures | deltas(size, options.repeats)


def stalls(rounds: Rounds) -> dict[str, Figure]:
    """Ours to each peer's, round by round, and to a copy of the same bytes; all in seconds too."""
    figures: dict[str, Figure] = {}
    for layout, suffix in LAYOUTS.items():
        ours = medians(rounds["tradewind", layout], "stall")
        for peer in BACKGROUND[1:]:
            theirs = medians(rounds[peer, layout], "stall")
            figures[f"stall_ratio_{peer}{suffix}"] = ratio(ours, theirs)
        for name in BACKGROUND:
            stall, total = (medians(rounds[name, layout], what) for what in ("stall", "total"))
            figures[f"stall_s_{name}{suffix}"] = Figure.of(stall, "s")
            figures[f"background_s_{name}{suffix}"] = Figure.of(total, "s")
    # Sharded, a rank copies all that it has: the same bytes as the plain copy.
    found = rounds["tradewind", "sharded"]
    figures["stall_ratio_memcpy"] = ratio(medians(found, "stall"), medians(found, "memcpy"))
    return figures


def disk(found: Sequence[dict[str, list[float]]]) -> dict[str, Figure]:
    """Durable saves and loads against DCP's; our restore from memory against that from disk.

    Ours writes past the page cache, so after a failure its newest checkpoint is not in there: `cold`. What is in memory
    can be used where it lies, and is verified meanwhile; `verified` and `into` (other tensors) are what waiting costs.
    """
    seconds = {name: medians(found, name) for name in found[0]}
    cold = seconds["load_cold_ours"]
    figures = {
        "save_speedup_dcp": ratio(seconds["save_dcp"], seconds["save_ours"]),
        "load_speedup_dcp": ratio(seconds["load_dcp"], seconds["load_ours"]),
        "load_cold_speedup_dcp": ratio(seconds["load_cold_dcp"], cold),
        "memory_restore_ratio_disk": ratio(seconds["load_memory"], cold),
        "memory_restore_verified_ratio_disk": ratio(seconds["load_memory_verified"], cold),
        "memory_restore_into_ratio_disk": ratio(seconds["load_memory_into"], cold),
    }
    return figures | {f"{name}_s": Figure.of(values, "s") for name, values in seconds.items()}


def inflation(rounds: Rounds) -> dict[str, Figure]:
    """The 99th percentile of step times with a save behind them to that without."""
    figures = {}
    for name in BACKGROUND:
        found = rounds[name, "alike"]
        suffix = "" if name == "tradewind" else f"_{name}"
        saving, quiet = medians(found, "p99_saving"), medians(found, "p99_quiet")
        figures[f"step_p99_inflation{suffix}"] = ratio(saving, quiet)
    return figures


def deltas(size: Size, repeats: int) -> dict[str, Figure]:
    """Bytes of a delta to those of the table when a hundredth of its rows was touched."""
    from bench.peers.checkpoints.deltas import DISTRIBUTIONS, delta_ratio

    found = {
        name: [delta_ratio(touch, size.rows, seed, hashed=False) for seed in range(repeats)]
        for name, touch in DISTRIBUTIONS.items()
    }
    hashed = [delta_ratio(touch, size.rows, 0, hashed=True) for touch in DISTRIBUTIONS.values()]
    figures = {f"delta_bytes_ratio_{name}": Figure.of(values, "ratio") for name, values in found.items()}
    worst = [max(pair) for pair in zip(*found.values(), strict=True)]
    return {
        "delta_bytes_ratio": Figure.of(worst, "ratio"),
        **figures,
        "delta_bytes_ratio_hashed": Figure.of(hashed, "ratio"),
    }


def medians(found: Sequence[dict[str, list[float]]], name: str) -> list[float]:
    """Each round's median of one measurement."""
    return [statistics.median(one[name]) for one in found]


def run_patiently(name: str, layout: str, size: Size, folder: Path | None) -> dict[str, list[float]]:
    """A round, begun again when a peer fails in it."""
    for _ in range(TRIES - 1 if name in BACKGROUND[1:] else 0):
        try:
            return run(name, layout, size, folder)
        except RuntimeError as error:
            say(f"{name} {layout}: begun again, because {error}")
    return run(name, layout, size, folder)


def run(name: str, layout: str, size: Size, folder: Path | None) -> dict[str, list[float]]:
    """One contender's round in two fresh processes."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=folder) as disk, tempfile.TemporaryDirectory(dir=memory) as shared:
        asked = {
            "mode": "foreground" if name == "foreground" else "background",
            "driver": name,
            "layout": layout,
            "bytes": size.bytes,
            "folder": disk,
            "memory": shared + "/images",
        }
        return _together(json.dumps(asked), name)


def _together(asked: str, name: str) -> dict[str, list[float]]:
    command = [sys.executable, "-m", "bench.peers.checkpoints.rank", asked]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "GLOO_SOCKET_IFNAME": "lo"}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        ranks = [
            subprocess.Popen(
                command,
                env=os.environ
                | meeting
                | {"RANK": str(rank), "WORLD_SIZE": str(RANKS), "OMP_NUM_THREADS": "1"},
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            for rank in range(RANKS)
        ]
        _wait(ranks)
        out.seek(0)
        err.seek(0)
        if any(process.returncode for process in ranks):
            raise RuntimeError(f"{name} failed:\n{err.read()[-4000:]}")
        return dict(json.loads(out.read().splitlines()[-1]))


def _wait(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until all ranks have ended; when one fails or time is up, the others are ended."""
    deadline = time.monotonic() + LIMIT_S
    while any(process.poll() is None for process in ranks):
        if any(process.returncode for process in ranks) or time.monotonic() > deadline:
            for process in ranks:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # Peers have processes of their own.
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _told(found: dict[str, list[float]]) -> str:
    return "  ".join(
        f"{name} {'/'.join(f'{value:.3f}' for value in values)}" for name, values in found.items()
    )


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", type=Path, help="where checkpoints are written (default: the temporary folder)"
    )


if __name__ == "__main__":
    main(NAME, measure, packages=("torch", "numpy"), add_flags=add_flags)
