"""What workers are started with: torchrun's environment, as torchrun itself gives it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tradewind import names
from tradewind.agent.job import Job, ephemeral_range, free_port, job_of, worker_environment
from tradewind.agent.place import Place
from tradewind.store import Run

PRINTER = """
import json, os, pathlib, sys
pathlib.Path(sys.argv[1], os.environ["RANK"]).write_text(json.dumps(dict(os.environ)))
"""
OURS = set(names.ENVIRONMENT) - {names.ENV_HOME, names.ENV_STORE, names.ENV_BLOBS}
ADDRESSES = {"MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_ERROR_FILE", "TORCHELASTIC_RUN_ID"}
STORE = "TORCHELASTIC_USE_AGENT_STORE"


def job(run_dir: Path, **fields: object) -> Job:
    """A job of two workers."""
    base: dict[str, object] = {
        "run": "r1",
        "run_dir": run_dir,
        "workdir": run_dir,
        "script": "train.py",
        "workers": 2,
    }
    return Job(**(base | fields))  # type: ignore[arg-type]


def environment(of: Job, rank: int = 1, base: dict[str, str] | None = None) -> dict[str, str]:
    """What rank 1 of the second restart sees."""
    return worker_environment(of, place(rank, attempt=4, restarts=2, port=12345), base or {})


def place(rank: int, **fields: int) -> Place:
    """A place among two workers of one host."""
    known = {"attempt": 0, "restarts": 0, "port": 1, "world": 2, "local_world": 2}
    return Place(rank=rank, local_rank=rank, **(known | fields))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def torchrun(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The environments of two workers of a real torchrun, by rank, without what this process has too."""
    folder = tmp_path_factory.mktemp("torchrun")
    (folder / "printer.py").write_text(PRINTER)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "3"]
    clean = {k: v for k, v in os.environ.items() if k not in names.ENVIRONMENT and k != "OMP_NUM_THREADS"}
    subprocess.run(
        [*command, folder / "printer.py", folder], env=clean, check=True, capture_output=True, timeout=120
    )
    found = [json.loads((folder / str(rank)).read_text()) for rank in range(2)]
    return [{k: v for k, v in env.items() if clean.get(k) != v} for env in found]


@pytest.mark.parametrize("rank", [0, 1])
def test_variables_are_exactly_those_of_torchrun(
    torchrun: list[dict[str, str]], tmp_path: Path, rank: int
) -> None:
    """Besides its own, Tradewind sets the variables that torchrun sets, and to the same values.

    Values differ for addresses and ids, and rank 0 opens the store that torchrun's agent holds.
    """
    found = worker_environment(job(tmp_path), place(rank), {})
    theirs = torchrun[rank]
    assert found.keys() - OURS == theirs.keys()
    assert found.keys() >= OURS
    compared = theirs.keys() - ADDRESSES - {STORE}
    assert {k: found[k] for k in compared} == {k: theirs[k] for k in compared}
    assert (theirs[STORE], found[STORE]) == ("True", "False")


def test_one_worker_uses_every_core(tmp_path: Path) -> None:
    """As with torchrun, only a group of several workers gets one thread each, unless the user says how many."""
    assert environment(job(tmp_path))["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in environment(job(tmp_path, workers=1), rank=0)
    assert environment(job(tmp_path), base={"OMP_NUM_THREADS": "4"})["OMP_NUM_THREADS"] == "4"
    assert environment(job(tmp_path, env={"OMP_NUM_THREADS": "6"}), base={"OMP_NUM_THREADS": "4"})[
        "OMP_NUM_THREADS"
    ] == "6"  # fmt: skip


def test_what_the_user_set_reaches_the_worker_but_not_over_the_contract(tmp_path: Path) -> None:
    """The user's variables come through, the job's over the shell's; a stale RANK does not."""
    found = environment(
        job(tmp_path, env={"A": "job", "RANK": "9", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3"}),
        base={"A": "shell", "B": "shell", "WORLD_SIZE": "64", "MASTER_PORT": "1", names.ENV_RUN: "outer"},
    )
    assert (found["A"], found["B"], found["TORCH_NCCL_ASYNC_ERROR_HANDLING"]) == ("job", "shell", "3")
    assert (found["RANK"], found["WORLD_SIZE"], found["MASTER_PORT"]) == ("1", "2", "12345")
    assert found[names.ENV_RUN] == "r1"
    assert found["TORCHELASTIC_RESTART_COUNT"] == "2"
    assert found[names.ENV_ATTEMPT] == "4"


def test_the_snapshot_comes_first_on_the_import_path(tmp_path: Path) -> None:
    """The snapshot's folders stand before the user's PYTHONPATH, which stays; without them nothing is touched."""
    found = environment(job(tmp_path, python_path=("/s/src", "/s")), base={"PYTHONPATH": "/mine::/other"})
    assert found["PYTHONPATH"] == "/s/src:/s:/mine:/other"
    assert environment(job(tmp_path, python_path=("/s",)))["PYTHONPATH"] == "/s"
    assert environment(job(tmp_path), base={"PYTHONPATH": ":/mine"})["PYTHONPATH"] == ":/mine"
    assert "PYTHONPATH" not in environment(job(tmp_path))


def test_files_of_a_rank_are_its_own(tmp_path: Path) -> None:
    """Log, journal and error file differ between ranks and attempts, and lie in the run's folder."""
    one = job(tmp_path)
    places = [
        place
        for attempt in (0, 1, 10)
        for rank in (0, 1, 11)
        for place in (one.log(attempt, rank), one.journal(attempt, rank), one.error_file(attempt, rank))
    ]
    assert len(set(places)) == len(places)
    assert all(place.is_relative_to(tmp_path) for place in places)
    found = environment(one)
    assert found[names.ENV_JOURNAL] == str(one.journal(4, 1))
    assert found["TORCHELASTIC_ERROR_FILE"] == str(one.error_file(4, 1))


def test_a_free_port_can_be_bound_and_is_not_one_the_kernel_hands_out() -> None:
    """No outgoing connection can take the port before rank 0 binds it, and one that is in use is not given."""
    low, high = ephemeral_range()
    for _ in range(20):
        port = free_port()
        assert not low <= port <= high
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))
            server.listen()


def test_a_stored_run_is_a_job(tmp_path: Path) -> None:
    """Script, folders and rules come out of the store; what an older run did not store has its default."""
    spec = {"script": "t.py", "workdir": "jobs", "args": ["--x", "1"], "workers": 3, "env": {"A": "b"}}
    run = Run(id="r1", name="t", created_s=1.0, dir=str(tmp_path), spec=spec | {"python_path": ["src", "."]})
    found = job_of(run)
    assert (found.run, found.run_dir, found.workers, found.max_restarts) == ("r1", tmp_path, 3, 3)
    assert (found.workdir, found.script, found.args) == (tmp_path / "code" / "jobs", "t.py", ("--x", "1"))
    assert found.python_path == (str(tmp_path / "code" / "src"), str(tmp_path / "code"))
    assert found.env == {"A": "b"}
    bare = job_of(Run(id="r2", name="t", created_s=1.0, dir=str(tmp_path), spec={"script": "t.py"}))
    assert (bare.workers, bare.args, bare.python_path, bare.workdir) == (1, (), (), tmp_path / "code")
