"""A peer with all that it depends on, in an environment of its own: nothing of ours changes, and nothing of its."""

import contextlib
import fcntl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SKY = ("sky", "skypilot[kubernetes]>=0.10")
TORCHX = ("torchx", "torchx>=0.7")
RETRIEVAL = ("retrieval", "usearch==2.26.6 lancedb==0.40.0 numpy pyarrow")
TRITON = ("triton", "torch==2.13.*", "nvidia-pytriton==0.7.0 numpy<2")
SERVERS = ("servers", "torch==2.13.*", "mosec==0.9.8 litserve==0.2.19 bentoml==1.4.40 ray[serve]==2.60.0")


def environment(name: str, *steps: str) -> Path:
    """The `bin` folder of a virtual environment that holds what each step installs, one after the other; made once.

    Raises CalledProcessError, with what pip said on standard error, when it cannot be installed.
    """
    with held(f"environment-{name}") as folder:
        made = folder / "made"
        if not made.exists():
            pip = [str(folder / "bin" / "pip"), "install", "--quiet"]
            commands = [[sys.executable, "-m", "venv", "--clear", str(folder)]]
            for command in commands + [[*pip, *step.split()] for step in steps]:
                subprocess.run(command, check=True, stdout=sys.stderr)
            made.touch()
    return folder / "bin"


@contextlib.contextmanager
def held(name: str) -> Iterator[Path]:
    """Yield the folder of a peer, there or not; whoever else wants it meanwhile waits, and then finds it made."""
    folder = Path(tempfile.gettempdir()) / "tradewind-bench" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
