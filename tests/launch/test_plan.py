"""The plan: what a run would ask for, worked out without writing anything."""

import os
from pathlib import Path

import pytest

from tests.launch.conftest import write
from tradewind.errors import SpecError
from tradewind.launch.plan import Plan, plan
from tradewind.spec import Resources, RunSpec


def test_what_would_run_from_which_files(root: Path) -> None:
    """Script, arguments, folders and sizes are worked out from where the command was typed."""
    write(root, {".gitignore": "big\n", "jobs/train.py": "x" * 100, "lib.py": "y" * 24, "big": "z" * 999})
    found = plan(RunSpec(script="train.py", args=("--lr", "1"), workers=2), root / "jobs")
    assert found == Plan(
        name="train",
        script="train.py",
        args=("--lr", "1"),
        root=str(root),
        workdir="jobs",
        workers=2,
        max_restarts=3,
        files=3,
        size_mib=(100 + 24 + 4) / 2**20,
        cpus=2.0,
        notes=found.notes,
    )
    assert plan(RunSpec(script="jobs/train.py", name="mine"), root).script == "jobs/train.py"
    assert plan(RunSpec(script="jobs/train.py", name="mine"), root).name == "mine"


@pytest.mark.parametrize("by_link", [False, True])
def test_from_outside_of_the_project_it_runs_beside_its_script(
    root: Path, tmp_path: Path, by_link: bool
) -> None:
    """A script of a project elsewhere, named by its path or through a link, runs in its own folder."""
    write(root, {"jobs/train.py": ""})
    (tmp_path / "link.py").symlink_to(root / "jobs/train.py")
    found = plan(RunSpec(script="link.py" if by_link else "project/jobs/train.py"), tmp_path)
    assert (found.root, found.workdir, found.script) == (str(root), "jobs", "train.py")


def test_without_git_the_working_folder_is_the_project(tmp_path: Path) -> None:
    """Where there is no repository the folder of the command is snapshotted, and the script runs in it."""
    write(tmp_path / "plain", {"src/train.py": "", "data.csv": ""})
    found = plan(RunSpec(script="src/train.py"), tmp_path / "plain")
    assert (found.root, found.workdir, found.script) == (str(tmp_path / "plain"), ".", "src/train.py")
    assert found.files == 2


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("nothing.py", "nothing.py is not a file in .*; give the path of a Python script"),
        ("jobs", "jobs is not a file"),
        ("ignored.py", "ignored.py is ignored by git, so it is not part of the snapshot"),
    ],
)
def test_a_script_that_cannot_run(root: Path, script: str, problem: str) -> None:
    """A script that is not there, is a folder, or would not be in the snapshot is refused by name."""
    write(root, {".gitignore": "ignored.py", "ignored.py": "", "jobs/train.py": ""})
    with pytest.raises(SpecError, match=problem):
        plan(RunSpec(script=script), root)


def test_what_does_not_fit_is_said(root: Path) -> None:
    """More CPUs, memory or GPUs than this machine has are noted, and what fits is not."""
    write(root, {"train.py": ""})
    cpus = len(os.sched_getaffinity(0))
    assert plan(RunSpec(script="train.py", workers=cpus), root).notes == ()
    asked = Resources(cpus=cpus + 0.5, memory_gib=1e6, gpus=99)
    found = plan(RunSpec(script="train.py", resources=asked, workers=2), root)
    assert found.cpus == 2 * cpus + 1
    assert [note.split(", this machine")[0] for note in found.notes] == [
        f"asks for {2 * cpus + 1} CPUs",
        "asks for 2e+06 GiB of memory",
        "asks for 198 GPUs",
    ]


def test_a_plan_writes_nothing(root: Path, home: Path) -> None:
    """Planning leaves the project, and the home folder that is not there, as they were."""
    write(root, {"train.py": ""})
    before = sorted(root.rglob("*"))
    plan(RunSpec(script="train.py"), root)
    assert not home.exists()
    assert sorted(root.rglob("*")) == before
