"""A peer's package beside, not into, our environment: the same torch for all, nothing of ours changed."""

import pathlib
import subprocess
import sys
import tempfile

from bench.peers.environments import held


def installed(requirement: str) -> pathlib.Path:
    """The folder, to put on `sys.path`, that holds one package without its dependencies; downloaded once, by one rank."""
    with held(requirement.replace("==", "-")) as folder:
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
                subprocess.run([*command, temporary + "/package", requirement], check=True, stdout=sys.stderr)
                pathlib.Path(temporary, "package").replace(folder)
    return folder
