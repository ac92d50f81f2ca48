"""What the workers of every contender see alike."""

import os
import subprocess
import sys
from pathlib import Path

from bench.peers.training import stamps

ROOT = Path(__file__).parents[3]
STEP_S = 0.05
WORK = "BENCH_WORK"
"""Environment variable: matrix products in a step."""
DEVICE = "BENCH_DEVICE"
"""Environment variable: where the model and its optimizer are; the CPU where it is not set."""


def of(folder: Path, work: int, device: str = "cpu") -> dict[str, str]:
    """Environment of a training whose stamps go to `folder`: one thread a worker, our packages importable."""
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {
        stamps.FOLDER: str(folder),
        WORK: str(work),
        DEVICE: device,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in dict.fromkeys(paths) if path),
    }


def calibrated(step_s: float = STEP_S) -> int:
    """Matrix products in a step of this length on this machine, measured in a process of their own."""
    command = [sys.executable, "-m", "bench.peers.training.task", str(step_s)]
    return int(subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout)
