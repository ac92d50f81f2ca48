"""Virtual environments of the peers, built once a machine: their requirements do not go together with ours."""

import pathlib
import subprocess
import sys
import tempfile

TORCH = "torch==2.13.*"
TRITON = "triton"
OTHERS = "others"
REQUIREMENTS = {
    TRITON: ("nvidia-pytriton==0.7.0", "numpy<2"),
    OTHERS: ("mosec==0.9.8", "litserve==0.2.19", "bentoml==1.4.40", "ray[serve]==2.60.0"),
}


def venv(name: str) -> pathlib.Path:
    """The folder of an environment; builds it where it is not there."""
    folder = pathlib.Path(tempfile.gettempdir()) / "tradewind-bench" / f"venv-{name}"
    if not (folder / "ready").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin/pip"), "install", "--quiet"]
        for requirements in ((TORCH,), REQUIREMENTS[name]):
            subprocess.run([*pip, *requirements], check=True, stdout=sys.stderr)
        (folder / "ready").touch()
    return folder
