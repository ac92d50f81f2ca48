"""`tradewind why`: from a dump without a cluster, and from the store for a run of this machine."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Project
from tests.launch.why.scenarios import recorded
from tradewind.cli.main import invoke
from tradewind.names import ExitCode


def written(folder: Path) -> str:
    path = folder / "dump.json"
    path.write_text(json.dumps(recorded.events_have_expired()))
    return str(path)


def test_json_has_the_causes_best_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`-o json` gives code, text, remedy, weight and evidence with object, field, value and time."""
    assert invoke(["why", "--from", written(tmp_path), "job/train", "-o", "json"]) == ExitCode.OK
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"job", "state", "causes"}
    weights = [cause["weight"] for cause in found["causes"]]
    assert weights == sorted(weights, reverse=True)
    first = found["causes"][0]
    assert first["code"] == "quota-exceeded"
    assert set(first) == {"code", "text", "remedy", "weight", "evidence"}
    assert set(first["evidence"][0]) == {"object", "field", "value", "time"}


def test_people_read_the_cause_its_evidence_and_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table form begins with the job and its first cause."""
    assert invoke(["why", "job/train", "--from", written(tmp_path)]) == ExitCode.OK
    said = capsys.readouterr().out
    assert said.startswith(
        "team/job/train  1 pods wanted: 1 are not made\n\nquota-exceeded: Quota team allows 16"
    )
    assert "status.used[requests.nvidia.com/gpu]: 16" in said
    assert "\nto do: " in said


def test_a_dump_may_come_through_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--from -` reads standard input."""
    data = json.dumps(recorded.volcano_gang()).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert invoke(["why", "job/train", "--from", "-"]) == ExitCode.OK
    assert "gang-incomplete: The gang needs 3 pods" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tokens", "code", "said"),
    [
        (["job/nobody", "--from", "{}"], ExitCode.NOT_FOUND, "no such job in the dump"),
        (["job/train", "--from", "/nowhere/dump.json"], ExitCode.USAGE, "cannot be read"),
        (["job/train"], ExitCode.USAGE, "--from dump.json"),
        (["job/train", "--on", "k8s", "--from", "{}"], ExitCode.USAGE, "give one of them"),
        (["job/train", "--on", "nowhere"], ExitCode.USAGE, "there is no such place"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tokens: list[str], code: int, said: str
) -> None:
    """A job that is not there, a file that is not there, a Job without a dump: each its code and its words."""
    assert invoke(["why", *(token.replace("{}", written(tmp_path)) for token in tokens)]) == code
    assert said in capsys.readouterr().err


def test_a_dump_is_explained_without_anything_heavy(tmp_path: Path) -> None:
    """No tensor library, no database, no HTTP and no Kubernetes client is loaded."""
    heavy = ("torch", "numpy", "sqlalchemy", "httpx2", "lightkube")
    code = (
        "import sys\nfrom tradewind.cli.main import invoke\n"
        f"invoke(['why', 'job/train', '--from', {written(tmp_path)!r}])\n"
        f"print('HEAVY', [m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "HEAVY []" in done.stdout


def test_a_run_of_this_machine_is_explained_from_the_store(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rank that failed first is named with its exception; a run that ended well is `completed`."""
    project("""
        if rank == 1:
            raise KeyError("user")
        signal.pause()
    """)
    assert invoke(["run", "main.py", "--workers", "2", "--max-restarts", "0"]) != ExitCode.OK
    capsys.readouterr()
    assert invoke(["why", "last", "-o", "json"]) == ExitCode.OK
    first = json.loads(capsys.readouterr().out)["causes"][0]
    assert (first["code"], "Rank 1 failed first" in first["text"]) == ("user-error", True)
    assert any("KeyError" in fact["value"] for fact in first["evidence"])
    project("")
    assert invoke(["run", "main.py"]) == ExitCode.OK
    capsys.readouterr()
    assert invoke(["why", "last"]) == ExitCode.OK
    assert "completed: " in capsys.readouterr().out
