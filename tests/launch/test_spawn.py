"""Another program's output, both streams of it, whatever this process has open."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tradewind
from tradewind.launch.spawn import output_of

SCRIPT = "cat; echo out; echo err >&2; echo $WORD; exit 3"


def test_both_streams_and_the_exit_code() -> None:
    """Standard output, standard error and the code come back; standard input is empty; the environment is as given."""
    done = output_of(["sh", "-c", SCRIPT], {"PATH": os.environ["PATH"], "WORD": "given"})
    assert done == (3, b"out\ngiven\n", b"err\n")


def test_a_program_that_is_not_there() -> None:
    """It is a FileNotFoundError, as of `subprocess`."""
    with pytest.raises(FileNotFoundError):
        output_of(["no-such-program"], {"PATH": os.environ["PATH"]})


def test_closed_standard_streams() -> None:
    """A process without standard streams loses nothing of what it captures."""
    code = (
        "import os\nfrom tradewind.launch.spawn import output_of\n"
        "keep = os.dup(1)\nfor fd in (0, 1, 2): os.close(fd)\n"
        f"done = output_of(['sh', '-c', {SCRIPT!r}], {{'PATH': os.environ['PATH'], 'WORD': 'w'}})\n"
        "os.write(keep, repr(tuple(done)).encode())\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(tradewind.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=60, check=False)
    assert done.stdout == repr((3, b"out\nw\n", b"err\n")).encode()
