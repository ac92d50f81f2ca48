"""`tradewind run` and its sisters, end to end with real processes and the real store."""

import json
import os
import select
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Gate, Project, Start
from tradewind.agent import Job
from tradewind.cli.main import invoke


def shown(capsys: pytest.CaptureFixture[str], run: str = "last") -> dict[str, Any]:
    """What `show -o json` says."""
    capsys.readouterr()
    assert invoke(["show", run, "-o", "json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_group_restarts_after_a_kill(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """A rank killed with SIGKILL makes the whole group start again, and the run succeed."""
    project("""
        write("step", step=1)
        if restart == 0 and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if restart == 0:
            signal.pause()
        write("step", step=2)
    """)
    assert invoke(["run", "main.py", "--workers", "2"]) == 0
    found = shown(capsys)
    assert [a["state"] for a in found["attempts"]] == ["failed", "succeeded"]
    assert found["failures"][0]["rank"] == 1
    assert found["failures"][0]["class"] == "killed"
    assert len(found["recovered_s"]) == 1
    assert sum(found["ledger"].values()) == pytest.approx(found["wall_s"], abs=1e-6)


@pytest.mark.parametrize(
    ("code", "expected", "state", "attempts"),
    [
        (0, 0, "succeeded", 1),
        (1, 1, "failed", 2),
        (75, 75, "requeued", 1),
        (65, 65, "failed", 1),
        (2, 65, "failed", 1),
    ],
)
def test_exit_code_is_intent(
    project: Project, capsys: pytest.CaptureFixture[str], code: int, expected: int, state: str, attempts: int
) -> None:
    """What a worker exits with decides the run's exit code and whether it is tried again."""
    project(f"sys.exit({code})")
    assert invoke(["run", "main.py", "--max-restarts", "1"]) == expected
    found = shown(capsys)
    assert (found["run"]["state"], len(found["attempts"])) == (state, attempts)


PEER_GONE = """
if rank == 1:
    print("reading shard 7", flush=True)
    sys.stderr.write("Traceback (most recent call last):\\n  File 'main.py'\\nValueError: shard 7 is empty\\n")
    sys.exit(1)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
print("Traceback (most recent call last):\\nRuntimeError: Connection closed by peer [127.0.0.1]:1", flush=True)
signal.pause()
"""


def test_the_first_failure_is_said_first(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Run, logs and show name the rank that failed by itself before anything else, and where its log is."""
    project(PEER_GONE)
    assert invoke(["run", "main.py", "--workers", "2", "--max-restarts", "0"]) == 1
    said = capsys.readouterr().err
    run = shown(capsys)["run"]["id"]
    head = "rank 1 (exception): ValueError: shard 7 is empty"
    assert said.index(f"first failure: {head}") < said.index(f"logs: tradewind logs {run} --rank 1")
    for command in ("logs", "show"):
        assert invoke([command, "last"]) == 0
        first = capsys.readouterr().out.splitlines()[0]
        assert first == f"first failure: attempt 0 {head}"


def test_every_rank_has_its_log(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Each rank's output is kept apart; `logs` marks whose line it is, `--rank` gives one rank's alone."""
    project("print(f'I am {rank}', flush=True); print('e', rank, file=sys.stderr)")
    assert invoke(["run", "main.py", "--workers", "2"]) == 0
    capsys.readouterr()
    assert invoke(["logs", "last"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "[rank0] I am 0",
        "[rank0] e 0",
        "[rank1] I am 1",
        "[rank1] e 1",
    ]
    assert invoke(["logs", "last", "--rank", "1"]) == 0
    assert capsys.readouterr().out == "I am 1\ne 1\n"
    assert invoke(["logs", "last", "--attempt", "0", "--rank", "0"]) == 0
    assert capsys.readouterr().out == "I am 0\ne 0\n"
    for missing in (["--rank", "2"], ["--attempt", "1"]):
        assert invoke(["logs", "last", *missing]) == 3
        assert "has no log of" in capsys.readouterr().err


def test_rank_0_is_heard_while_it_runs(project: Project, start: Start, gate: Gate) -> None:
    """A foreground run passes on what rank 0 prints, when it prints it, and nobody else's output."""
    project(f"""
        print("hello from", rank, flush=True)
        if rank == 0:
            {gate.script}
            print("bye", flush=True)
    """)
    running = start("run", "main.py", "--workers", "2")
    gate.reached()
    assert running.stdout is not None
    assert running.stdout.readline() == "hello from 0\n"
    gate.opened()
    out, err = running.communicate(timeout=60)
    assert (out, running.returncode) == ("bye\n", 0)
    assert "hello" not in err


COMMITS = """
woken, wake = os.pipe()
os.set_blocking(wake, False)
signal.set_wakeup_fd(wake)
def commit(*_):
    with open(os.path.join(os.environ["TRADEWIND_RUN_DIR"], f"committed{rank}"), "w"):
        sys.exit(75)
signal.signal(signal.SIGTERM, commit)
signal.signal(signal.SIGINT, lambda *_: os._exit(99))
"""


@pytest.mark.parametrize(
    ("signum", "code", "state"), [(signal.SIGINT, 130, "stopped"), (signal.SIGTERM, 75, "requeued")]
)
def test_a_run_that_is_told_to_end_lets_its_workers_commit(
    project: Project,
    start: Start,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    signum: int,
    code: int,
    state: str,
) -> None:
    """Ctrl-C stops and SIGTERM preempts: every worker commits first, and the exit code says which it was."""
    gates = [Gate(tmp_path / f"gate{rank}") for rank in range(2)]
    project(f"{COMMITS}\nexec({[gate.script for gate in gates]}[rank])\nos.read(woken, 1)")
    running = start("run", "main.py", "--workers", "2")
    for gate in gates:
        gate.reached()
        gate.opened()
    running.send_signal(signum)
    _, err = running.communicate(timeout=60)
    assert running.returncode == code, err
    assert "after its workers committed" in err
    found = shown(capsys)
    assert (found["run"]["state"], found["run"]["exit_code"]) == (state, code)
    assert found["failures"] == []
    assert {path.name for path in Path(found["run"]["dir"]).glob("committed*")} == {
        "committed0",
        "committed1",
    }


def test_a_second_ctrl_c_waits_for_nobody(project: Project, start: Start, gate: Gate) -> None:
    """Workers that will not end are killed when the run is interrupted once more."""
    project(
        f"signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'no\\n'))\n{gate.script}\nwhile True: signal.pause()"
    )
    running = start("run", "main.py")
    gate.reached()
    gate.opened()
    running.send_signal(signal.SIGINT)
    assert running.stdout is not None
    assert running.stdout.readline() == "no\n"
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "stopped at its last checkpoint" in err


def test_kill_9_of_the_command_leaves_nothing_running(
    project: Project, start: Start, gate: Gate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """When the command itself dies its workers die with it, and the next look at the run says so."""
    project(f"open('pid', 'w').write(str(os.getpid()))\n{gate.script}\nsignal.pause()")
    running = start("run", "main.py")
    gate.reached()
    (pid,) = (tmp_path / "home" / "runs").glob("*/code/pid")
    worker = os.pidfd_open(int(pid.read_text()))
    running.kill()
    running.communicate()
    assert select.select([worker], [], [], 60)[0], "the worker lives on"
    os.close(worker)
    assert invoke(["ps", "-o", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["state"], row["exit_code"]) == ("failed", 1)


def test_rerun_runs_the_same_bytes(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """`rerun` executes the code as it was, with its arguments, whatever the working tree is now."""
    project("print('first', sys.argv[1:])")
    assert invoke(["run", "main.py", "--", "--lr", "0.1"]) == 0
    first = shown(capsys)["run"]
    project("print('second')")
    capsys.readouterr()
    assert invoke(["rerun", "last"]) == 0
    assert "first ['--lr', '0.1']" in capsys.readouterr().out
    again = shown(capsys)["run"]
    assert again["id"] != first["id"]
    assert again["snapshot"] == first["snapshot"]


def test_stop_returns_when_workers_have_committed(
    project: Project, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    """`stop` of a run in the background ends it in good order, and a second one says that it does not run."""
    project(f"{COMMITS}\n{gate.script}\nos.read(woken, 1)")
    assert invoke(["run", "main.py", "--detach"]) == 0
    run = capsys.readouterr().out.strip()
    gate.reached()
    gate.opened()
    assert invoke(["stop", run, "-o", "json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["id"], row["state"], row["exit_code"]) == (run, "stopped", 130)
    assert (Path(row["dir"]) / "committed0").exists()
    assert invoke(["stop", run]) == 1
    assert f"run {run} does not run here; it is stopped" in capsys.readouterr().err


def test_stop_now_waits_for_no_worker(
    project: Project, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    """`stop --now` kills a worker that does not end when it is asked, without giving it the usual time."""
    project(f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{gate.script}\nsignal.pause()")
    assert invoke(["run", "main.py", "--detach"]) == 0
    gate.reached()
    gate.opened()
    began = time.monotonic()
    assert invoke(["stop", "last", "--now"]) == 0
    assert time.monotonic() - began < Job(run="", run_dir=Path(), workdir=Path(), script="").grace_s / 2
    assert shown(capsys)["run"]["state"] == "stopped"


def test_stop_right_after_the_start(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """As soon as `run --detach` has returned the run can be stopped, however early that is."""
    project("signal.pause()")
    for _ in range(3):
        assert invoke(["run", "main.py", "--detach"]) == 0
        run = capsys.readouterr().out.strip()
        assert invoke(["stop", run, "--now", "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["state"] == "stopped"


def test_every_list_and_result_is_json_when_asked(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `-o json` a command prints one JSON value and nothing else on stdout, whatever its worker prints."""

    def said(*tokens: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert invoke([tokens[0], "-o", "json", *tokens[1:]]) == code
        return json.loads(capsys.readouterr().out)

    assert said("ps") == []
    assert said("models") == []
    project("print('not json'); sys.exit(int(sys.argv[1]))")
    good = said("run", "main.py", "--", "0")
    bad = said("run", "main.py", "--max-restarts", "0", "--", "3", code=1)
    again = said("rerun", good["id"])
    assert [(r["state"], r["exit_code"]) for r in (good, bad, again)] == [
        ("succeeded", 0), ("failed", 1), ("succeeded", 0),
    ]  # fmt: skip
    detached = said("run", "main.py", "--detach", "--", "0")
    listed = said("ps")
    assert [r["id"] for r in listed] == [r["id"] for r in (detached, again, bad, good)]
    assert [r["id"] for r in said("ps", "--limit", "1")] == [detached["id"]]
    assert len(said("ps", "--all", "--limit", "1")) == 4
    assert said("show", bad["id"])["failures"][0]["exit_code"] == 3
    assert said("run", "main.py", "--dry-run")["files"] == 1


def test_a_table_for_people(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a flag runs are a table with a header, one line a run."""
    project("pass")
    assert invoke(["run", "main.py", "--name", "mine"]) == 0
    capsys.readouterr()
    assert invoke(["ps"]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["ID", "NAME", "ON", "STATE", "WORKERS", "AGE_S", "WALL_S", "EXIT_CODE"]
    assert line.split()[1:5] == ["mine", "here", "succeeded", "1"]


def test_a_spec_file_and_flags_over_it(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """A YAML file can hold what is asked for, and a flag on the command line wins over it."""
    script = project("pass")
    script.with_name("run.yaml").write_text("script: main.py\nworkers: 3\nname: filed\nargs: [--lr, '1']\n")
    assert invoke(["run", "run.yaml", "--workers", "2", "--dry-run", "-o", "json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["name"], plan["workers"], plan["args"]) == ("filed", 2, ["--lr", "1"])


@pytest.mark.parametrize("command", ["show", "logs", "stop", "rerun"])
def test_a_run_that_does_not_exist(
    project: Project, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Naming an unknown run ends with the code for it, and says what was looked for."""
    assert invoke([command, "nothing"]) == 3
    assert "no run 'nothing'" in capsys.readouterr().err


def test_dry_run_writes_nothing(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--dry-run` prints the plan, leaves no home folder behind and nothing in the project."""
    project("print('ran')")
    before = sorted(tmp_path.rglob("*"))
    assert invoke(["run", "main.py", "--workers", "2", "--dry-run", "-o", "json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["script"], plan["workers"], plan["files"]) == ("main.py", 2, 1)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_reader_that_leaves_is_no_error(project: Project, start: Start) -> None:
    """`tradewind logs | head` ends quietly and well."""
    project("[print('line', n) for n in range(20_000)]")
    assert invoke(["run", "main.py"]) == 0
    logs = start("logs", "last")
    assert logs.stdout is not None
    assert logs.stdout.readline() == "[rank0] line 0\n"
    logs.stdout.close()
    assert logs.stderr is not None
    assert logs.stderr.read() == ""
    assert logs.wait(60) == 0
