"""`tradewind load`, `report` and `doctor` as a user types them."""

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.console.build import BEGIN_S, record_run
from tests.services.injected import injected_server
from tradewind.cli.load import exit_code
from tradewind.cli.loadplan import parse_header, rates, read_bodies
from tradewind.cli.main import invoke
from tradewind.errors import SpecError
from tradewind.scale import capacity
from tradewind.store import Run, open_store


def tradewind(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command with a store of its own."""
    environment = {**os.environ, "TRADEWIND_HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("TRADEWIND_STORE", None)
    command = [sys.executable, "-c", "from tradewind.cli.main import main; main()", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_load_measures_keeps_and_reports(tmp_path: Path) -> None:
    """Bodies are sent, results kept with the run, and its report shows them under load."""
    bodies = tmp_path / "bodies.jsonl"
    bodies.write_text('{"history": ["50"]}\n\n{"history": ["1", "2"]}\n')
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        store.add_run(Run(id="a1b2c3d4e5f6", name="demo", state="succeeded", created_s=BEGIN_S))
    with injected_server(delay_ms=1) as server:
        done = tradewind(
            tmp_path, "load", f"{server.url}/v1/recommend", "--body", str(bodies), "--rate", "100", "--duration",
            "1s", "--warmup", "200ms", "--deadline", "2s", "--run", "a1b2", "-o", "json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert server.seen()["bodies"] == ['{"history": ["1", "2"]}', '{"history": ["50"]}']
    (result,) = json.loads(done.stdout)
    assert result["verdict"] == "pass"
    assert result["ok"] == result["offered"] > 60
    page = tmp_path / "pages" / "report.html"
    told = tradewind(tmp_path, "report", "demo", "--out", str(page), "-o", "json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["loads"][0]["verdict"] == "pass"
    assert "Under load" in page.read_text("utf-8")


def test_no_verdict_is_exit_code_5(tmp_path: Path) -> None:
    """One connection against a slow server cannot keep the schedule: exit 5, and the table says why."""
    with injected_server(delay_ms=60) as server:
        done = tradewind(
            tmp_path, "load", server.url, "--rate", "80", "--duration", "1s", "--warmup", "0s",
            "--connections", "1",
        )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "no-verdict" in done.stdout


def test_a_missed_objective_is_exit_code_4() -> None:
    """Pass, fail and no verdict end differently, and no verdict outranks fail."""
    from tests.console.build import load_result

    good, bad, unknown = (
        load_result(1, 100, 1, 2, 3, 4, refused, lag_ms=lag) for refused, lag in ((0, 1), (0.5, 1), (0.5, 99))
    )
    assert [exit_code([good]), exit_code([good, bad]), exit_code([bad, unknown])] == [0, 4, 5]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["http://192.0.2.7/", "--rate", "1"], "--allow-remote"),
        (["http://127.0.0.1:1/", "--rate", "fast"], "0.5x"),
        (["http://127.0.0.1:1/", "--rate", "1", "--body", "absent.jsonl"], "no such file"),
        (["http://127.0.0.1:1/", "--rate", "1", "--duration", "soon"], "soon"),
        (["http://127.0.0.1:1/", "--rate", "1", "--header", "x"], "name: value"),
    ],
)
def test_what_cannot_be_done_is_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong command line sends nothing and names the remedy."""
    assert invoke(["load", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_run_that_does_not_exist_is_noticed_before_load_is_sent(tmp_path: Path) -> None:
    """`--run` is looked up first: exit 3, and the server saw nothing."""
    with injected_server() as server:
        done = tradewind(tmp_path, "load", server.url, "--rate", "50", "--duration", "1s", "--run", "nope")
        assert server.seen()["requests"] == 0
    assert done.returncode == 3, done.stderr
    assert tradewind(tmp_path, "report", "nope").returncode == 3


def test_rates_are_multiples_of_measured_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.5x is half of what the closed loop found; a plain number is taken as it is."""
    short = functools.partial(capacity.find_capacity, duration_s=0.3, warmup_s=0.1, concurrencies=(2,))
    monkeypatch.setattr(capacity, "find_capacity", short)
    with injected_server(delay_ms=2) as server:
        (half, share), (plain, none) = rates(["0.5x", "30"], server.url, None, 1000.0, {}, False)
    assert 25 < half <= 2 * 500 / 2
    assert (share, plain, none) == (0.5, 30.0, None)


def test_bodies_that_are_not_json_name_their_line(tmp_path: Path) -> None:
    """A broken line is refused with file and line number, an empty file too."""
    path = tmp_path / "bodies.jsonl"
    path.write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(SpecError, match="line 2"):
        read_bodies(path)
    path.write_text("\n")
    with pytest.raises(SpecError, match="no body"):
        read_bodies(path)
    assert parse_header("X-Key:  a:b ") == ("X-Key", "a:b")


def test_report_prints_the_brief(tmp_path: Path) -> None:
    """Without -o json the terminal shows ledger and recovery, and where the page is."""
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        record_run(store)
    done = tradewind(tmp_path, "report", "last", "--out", str(tmp_path / "r.html"))
    assert done.returncode == 0, done.stderr
    assert "sum = wall time" in done.stdout
    assert "next step after 3.10 s" in done.stdout
    assert str(tmp_path / "r.html") in done.stdout


def test_doctor_answers_in_both_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table has a row per check, JSON the same checks."""
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path))
    code = invoke(["doctor", "-o", "json"])
    checks = json.loads(capsys.readouterr().out)
    assert code == int(any(check["needed"] and not check["ok"] for check in checks))
    invoke(["doctor"])
    table = capsys.readouterr().out
    assert all(check["name"] in table for check in checks)


@pytest.mark.parametrize(
    ("command", "taught"),
    [
        ("load", ["Poisson", "0.5x", "Exit codes", "--body requests.jsonl"]),
        ("report", ["ledger", "last --out report.html"]),
        ("doctor", ["Exits 1"]),
    ],
)
def test_help_teaches(command: str, taught: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """--help says what happens, with an example, not only the flags."""
    invoke([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert [words for words in taught if words not in text] == []


def test_classes_and_a_shape_are_reported_one_by_one(tmp_path: Path) -> None:
    """Each class and each phase of a step has its own figures, in the table and in the run's report."""
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        store.add_run(Run(id="a1b2c3d4e5f6", name="demo", state="succeeded", created_s=BEGIN_S))
    with injected_server() as server:
        done = tradewind(
            tmp_path, "load", server.url, "--class", "name=top,rate=40,tenant=a,priority=high", "--class",
            "name=rest,rate=20,deadline=3s", "--shape", "step", "--peak", "2", "--duration", "1500ms", "--warmup",
            "0s", "--deadline", "5s", "--run", "demo",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + done.stdout
        assert {"3000", "5000"} <= set(server.seen()["deadlines"])
    for said in ("top", "rest", "before", "peak", "after", "SETTLE_S", "generator: lag p99"):
        assert said in done.stdout
    page = tmp_path / "report.html"
    assert tradewind(tmp_path, "report", "demo", "--out", str(page)).returncode == 0
    assert "Over time" in page.read_text("utf-8")


def heed_interrupts() -> None:
    """A job in the background ignores Ctrl-C, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_with_partial_results(tmp_path: Path) -> None:
    """SIGINT while load is sent: what there is, marked as partial, and exit code 130."""
    environment = {**os.environ, "TRADEWIND_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    with injected_server() as server:
        command = [sys.executable, "-c", "from tradewind.cli.main import main; main()", "load", server.url]
        flags = ["--rate", "100", "--duration", "10m", "--warmup", "0s", "--deadline", "5s", "-o", "json"]
        with subprocess.Popen(
            [*command, *flags], env=environment, stdout=subprocess.PIPE, preexec_fn=heed_interrupts
        ) as process:
            while server.seen()["requests"] < 20:
                pass
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
    (result,) = json.loads(out)
    assert process.returncode == 130
    assert (result["partial"], result["verdict"]) == (True, "no-verdict")
    assert 15 <= result["offered"] == result["ok"] + result["refused"] + result["errors"]
    assert "interrupted after" in result["why"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--rate, --class"),
        (["--rate", "1", "--class", "name=a,rate=1"], "--rate, --class"),
        (["--class", "name=a,rate=fast"], "0.5x"),
        (["--class", "name=a,colour=red"], "the fields are name, rate"),
        (["--class", "name=a,rate=1", "--class", "name=a,rate=2"], "twice"),
        (["--rate", "1", "--shape", "wave"], "black-friday"),
        (["--rate", "1", "--shape", "step", "--peak", "0"], "--peak"),
        (["--rate", "1", "--endpoint", "http://127.0.0.1:1/=none"], "URL=WEIGHT"),
        (["--replay", "absent.jsonl"], "no such file"),
    ],
)
def test_a_plan_that_means_nothing_is_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong is named with its remedy, and nothing is sent."""
    assert invoke(["load", "http://127.0.0.1:1/", *arguments]) == 2
    assert said in capsys.readouterr().err
