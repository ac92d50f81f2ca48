"""SIGKILL at every line of the code that writes a checkpoint."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.train import workers

SCRIPT = """
import os, shutil, signal, sys, threading
from pathlib import Path
from tests.train import states
from tradewind.train import checkpoint
from tradewind.train.checkpoint import background, files, stream, writer

WATCHED = {module.__file__ for module in (background, files, stream, writer)}
shm = Path(sys.argv[2])

def in_one_go(root):
    states.save(root, 3)
    checkpoint.prune(root, keep=2, step=3)

def in_background(root):
    memory = checkpoint.Memory(shm, rank=0, world=1, local_rank=0, local_world=1)
    saver = checkpoint.Saver(root, memory, keep=2)
    memory.stage(3, states.shared(3), states.own(0))
    saver.start(3)
    saver.close()

write = {"save": in_one_go, "saver": in_background}[sys.argv[1]]

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
        threading.settrace(trace)
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
    if line % 20 == 0:
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
@pytest.mark.parametrize("way", ["save", "saver"])
def test_a_writer_killed_at_any_line_leaves_whole_checkpoints_only(way: str, shm: Path) -> None:
    """After SIGKILL at each line in turn every committed checkpoint is whole, and writing goes on."""
    env = workers.environment(0, 1, 0)
    env["PYTHONPATH"] += f":{Path(__file__).parents[2]}"
    command = [sys.executable, "-c", SCRIPT, way, str(shm / "memory")]
    # A kill is no power loss, so the disk may be memory too, where a flush costs nothing.
    done = subprocess.run(command, cwd=shm, env=env, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    lines, newest = done.stdout.split(maxsplit=1)
    assert int(lines) > 150
    assert newest.strip() == "[2, 3]"
