"""Runs on this machine: snapshot, run folder, and an agent in this process or one of its own."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tradewind import names
from tradewind.errors import TradewindError
from tradewind.launch.plan import Plan
from tradewind.launch.snapshot import checkout, snapshot_of
from tradewind.spec import RunSpec, to_dict

if TYPE_CHECKING:
    from tradewind.store import Blobs, Run, Store

CODE_DIR = "code"


def submit(spec: RunSpec, store: "Store", blobs: "Blobs | None" = None, cwd: Path | None = None) -> "Run":
    """Snapshot the code of `spec` and create its run, ready for an agent; workers of all hosts are workers of this one.

    Raises SpecError when the script is not there.
    """
    created_s = time.time()
    worked_out, digest, blobs = snapshot_of(spec, blobs, cwd)
    stored = as_stored(msgspec.structs.replace(spec, hosts=1, min_hosts=0), worked_out)
    return create(worked_out.name, stored, digest, store, blobs, created_s)


def as_stored(spec: RunSpec, worked_out: Plan) -> dict[str, Any]:
    """The spec as the store keeps it and agents read it: paths are those of the snapshot."""
    return to_dict(spec) | {
        "script": worked_out.script,
        "workdir": worked_out.workdir,
        "root": worked_out.root,
        "python_path": python_path(worked_out),
    }


def resubmit(earlier: "Run", store: "Store", blobs: "Blobs | None" = None) -> "Run":
    """A new run of the same bytes with the same arguments.

    Raises TradewindError when the earlier run has no snapshot.
    """
    from tradewind.store import open_blobs

    if not earlier.snapshot:
        raise TradewindError(f"run {earlier.id} has no code snapshot, so it cannot be run again")
    return create(earlier.name, earlier.spec, earlier.snapshot, store, blobs or open_blobs(), time.time())


def create(
    name: str, stored: dict[str, object], digest: str, store: "Store", blobs: "Blobs", created_s: float
) -> "Run":
    """Lay out the run folder with the code checked out, then make the run known."""
    from tradewind.store import Run, home, new_id

    run_id = new_id()
    run_dir = home() / "runs" / run_id
    try:
        (run_dir / CODE_DIR).mkdir(parents=True)
        checkout(digest, blobs, run_dir / CODE_DIR)
        (run_dir / CODE_DIR / str(stored["workdir"])).mkdir(parents=True, exist_ok=True)
        make_checkpoints(run_dir, stored.get("checkpoint_dir"))
        run = Run(id=run_id, name=name, created_s=created_s, spec=stored, snapshot=digest, dir=str(run_dir))
        return store.add_run(run)
    except BaseException:  # also on Ctrl-C: no run knows of the folder
        shutil.rmtree(run_dir, ignore_errors=True)
        raise


def make_checkpoints(run_dir: Path, elsewhere: object) -> None:
    """The run's checkpoint folder: its own, or a link to the one that the spec names."""
    if elsewhere is None:
        (run_dir / names.CHECKPOINTS_DIR).mkdir()
        return
    target = Path(str(elsewhere)).expanduser().absolute()
    target.mkdir(parents=True, exist_ok=True)
    (run_dir / names.CHECKPOINTS_DIR).symlink_to(target)


def python_path(worked_out: Plan) -> list[str]:
    """Import paths of this interpreter that lie in the snapshot, relative to it.

    An editable install points at the working tree; workers must import the snapshotted bytes instead.
    """
    root = Path(worked_out.root)
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    found = []
    for text in dict.fromkeys([*given, *sys.path[1:]]):
        path = Path(text).resolve() if text else root
        if text and path.is_dir() and path.is_relative_to(root) and "site-packages" not in path.parts:
            found.append(str(path.relative_to(root)))
    return found


def start_detached(run: "Run", store: "Store") -> int:
    """Start an agent that outlives this process; return its process id once it holds the run.

    Raises TradewindError when it ended before that, with what it said.
    """
    log = Path(run.dir) / "agent.log"
    reader, writer = os.pipe()
    with log.open("ab") as output, os.fdopen(reader, "rb") as ready:
        process = subprocess.Popen(
            # -P: a `queue.py` in the project must not take the place of Python's own.
            [sys.executable, "-P", "-m", "tradewind.agent", run.id, str(writer)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(writer,),
        )
        os.close(writer)
        if ready.read(1):
            process.returncode = 0  # It is meant to outlive us; without this Popen warns that it still runs.
            return process.pid
    code = process.wait()
    store.update_run(run.id, state="failed", ended_s=time.time(), exit_code=code)
    raise TradewindError(f"run {run.id}: its agent did not start:\n{log.read_text(errors='replace')[-2000:]}")


def reconcile(run: "Run", store: "Store") -> "Run":
    """The run, marked failed when its agent on this machine died without saying how it ended."""
    if run.state != "running" or not os.path.isdir(run.dir):
        return run
    from tradewind.agent.lock import is_held  # The agent's modules take as long as asking a cluster.

    if is_held(Path(run.dir)):
        return run
    run = store.run(run.id)  # An agent says how the run ended before it lets go of it.
    if run.state != "running":
        return run
    now = time.time()
    for attempt in store.attempts(run.id):
        if attempt.state == "running":
            store.update_attempt(run.id, attempt.index, state="failed", ended_s=now, reason="its agent died")
    return store.update_run(run.id, state="failed", ended_s=now, exit_code=names.ExitCode.FAILED)
