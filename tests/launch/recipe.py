"""The recommender recipe as a project whose samples can be checked and whose steps can be held."""

import pathlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.agent import training
from tests.agent.training import Finished

RECIPES = pathlib.Path(__file__).parents[2] / "recipes"
SCRIPT = "recipes/recommender/train.py"
STEPS_PER_EPOCH = 10
NOTED = """
import os, pathlib, time
from safetensors.torch import save_file
from recipes.recommender import train as recipe
from tradewind import train

OUT = pathlib.Path(os.environ["OUT"])

# A worker that goes on in place runs this again, in the same process.
Plain = getattr(train.Loop, "plain", train.Loop)

class Noted(Plain):
    '''What the loop hands out is written down; the recipe is as it is.'''

    plain = Plain

    def __init__(self, **given):
        super().__init__(**given, max_recompute=1)

    def __iter__(self):
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        for rows in super().__iter__():
            step = self.step + 1
            if step in GATES:
                print("at step", step, flush=True)
                (OUT / f"at{step}.{rank}").touch()
                while not (OUT / f"go{step}").exists() and not self._preemption.asked:
                    time.sleep(0.01)
            yield rows
            with open(OUT / f"samples.{os.getpid()}", "a") as out:
                out.write(f"{step} {world} {rank} {' '.join(map(str, rows.tolist()))}\\n")

whole = getattr(recipe.outcome.report, "whole", recipe.outcome.report)

def report(fitted, *given):
    save_file(fitted.model.state_dict(), OUT / "final.safetensors")
    if "ONLY_WEIGHTS" not in os.environ:
        whole(fitted, *given)

report.whole = whole
recipe.outcome.report = report
train.Loop = Noted
recipe.main()
"""


class Trained(NamedTuple):
    """How the recipe is trained, and the steps whose body waits for the test, unless its worker is told to leave."""

    workers: int
    epochs: int
    gates: Sequence[int]

    @property
    def flags(self) -> tuple[str, ...]:
        """Of the recipe: its smallest model and data, and so many epochs."""
        return ("--data", "synthetic:5000", "--model", "sasrec", "--epochs", str(self.epochs))

    @property
    def steps(self) -> list[int]:
        """All of them, in order."""
        return list(range(1, self.epochs * STEPS_PER_EPOCH + 1))

    def write(self, folder: pathlib.Path) -> None:
        """A project with the recipe in it, and `noted.py`, which notes what the recipe does."""
        copy_to(folder)
        (folder / "noted.py").write_text(f"GATES = {tuple(self.gates)}\n{NOTED}")

    def start_calm(self, folder: pathlib.Path, **env: str) -> "subprocess.Popen[str]":
        """An undisturbed run on this machine, in the background; with ONLY_WEIGHTS it makes no package of them."""
        (folder / "out").mkdir(parents=True)
        for step in self.gates:
            go_on(folder / "out", step)
        self.write(folder / "project")
        words = ["noted.py", "--workers", str(self.workers), "--", *self.flags, "--out", str(folder / "out")]
        return subprocess.Popen(
            [*training.TRADEWIND, "run", *words],
            cwd=folder / "project",
            env=training.environment(folder, **env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def at_gate(self, out: pathlib.Path, step: int, said: Callable[[], str], limit_s: float = 90) -> None:
        """Return once all workers are in the body of this step."""
        wanted = [out / f"at{step}.{rank}" for rank in range(self.workers)]
        training.wait_until(
            lambda: all(path.exists() for path in wanted), lambda: f"not at {step}\n{said()}", limit_s
        )

    def check_equal(self, found: Finished, calm: Finished) -> None:
        """No sample of any step was lost or repeated, and the weights are those of the calm run, byte for byte."""
        committed = found.committed()
        assert committed == calm.committed()
        assert list(committed) == self.steps
        for first in range(0, len(self.steps), STEPS_PER_EPOCH):
            epoch = [sample for step in self.steps[first:][:STEPS_PER_EPOCH] for sample in committed[step]]
            assert len(epoch) == len(set(epoch))
        assert found.weights == calm.weights


def copy_to(folder: pathlib.Path) -> None:
    """The recipe's files, as a project has them."""
    shutil.copytree(RECIPES, folder / "recipes", ignore=shutil.ignore_patterns("__pycache__"))


def go_on(out: pathlib.Path, step: int) -> None:
    """Let the step at which workers wait begin."""
    (out / f"go{step}").touch()


def package(out: pathlib.Path) -> dict[str, bytes]:
    """The trained weights in the recipe's package, by file."""
    return {path.name: path.read_bytes() for path in sorted((out / "package" / "weights").iterdir())}
