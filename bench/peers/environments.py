"""A peer with all that it depends on, in an environment of its own: nothing of ours changes, and nothing of its."""

import fcntl
import subprocess
import sys
import tempfile
from pathlib import Path

SKY = ("sky", "skypilot[kubernetes]>=0.10")
TORCHX = ("torchx", "torchx>=0.7")


def environment(name: str, requirement: str) -> Path:
    """The `bin` folder of a virtual environment that holds the requirement; it is made once.

    Raises CalledProcessError, with what pip said on standard error, when it cannot be installed.
    """
    folder = Path(tempfile.gettempdir()) / "tradewind-bench" / f"environment-{name}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = folder / "made"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            for command in (
                [sys.executable, "-m", "venv", "--clear", str(folder)],
                [str(folder / "bin" / "pip"), "install", "--quiet", requirement],
            ):
                subprocess.run(command, check=True, stdout=sys.stderr)
            made.touch()
    return folder / "bin"
