"""SIGKILL at every line of the code that writes a checkpoint."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.train import workers

SCRIPT = """
import os, shutil, signal, sys
from pathlib import Path
from tests.train import states
from tradewind.train import checkpoint
from tradewind.train.checkpoint import files, writer

WATCHED = {files.__file__, writer.__file__}

def write(root):
    states.save(root, 3)
    checkpoint.prune(root, keep=2, step=3)

def killed_at(root, line):
    child = os.fork()
    if child == 0:
        left = [line]
        def trace(frame, event, argument):
            if frame.f_code.co_filename not in WATCHED:
                return None
            if event == "line":
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace
        sys.settrace(trace)
        write(root)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

template, root = Path("template"), Path("root")
states.save(template, 1), states.save(template, 2)
line, newest = 1, set()
while True:
    shutil.copytree(template, root)
    killed = killed_at(root, line)
    found = checkpoint.latest(root, lambda folder, why: sys.exit(f"line {line}: {why}"))
    newest.add(checkpoint.load(found).step)
    writer.clean(root)
    assert {path.name[:5] for path in root.iterdir()} == {"step-"}, line
    if line % 5 == 0:
        write(root)
        assert checkpoint.steps(root) == [2, 3], (line, checkpoint.steps(root))
        checkpoint.verify(root / "step-000000000003")
    shutil.rmtree(root)
    if not killed:
        break
    line += 1
print(line, sorted(newest))
"""


@pytest.mark.slow
def test_a_writer_killed_at_any_line_leaves_whole_checkpoints_only(tmp_path: Path) -> None:
    """After SIGKILL at each line in turn every committed checkpoint is whole, and writing goes on."""
    env = workers.environment(0, 1, 0)
    env["PYTHONPATH"] += f":{Path(__file__).parents[2]}"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines, newest = done.stdout.split(maxsplit=1)
    assert int(lines) > 80
    assert newest.strip() == "[2, 3]"
