"""The command line as a whole: what it lists, what it loads, how it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tradewind
from tests.cli.conftest import TRADEWIND
from tests.launch.why.scenarios import recorded
from tradewind.cli.main import COMMANDS, invoke
from tradewind.names import ExitCode

FROZEN = (
    "run", "plan", "render", "rerun", "ps", "show", "logs", "why", "resize", "stop", "chaos", "publish", "models", "promote",
    "compile", "serve", "deploy", "endpoints", "undeploy", "keys", "load", "report", "doctor",
)  # fmt: skip
HEAVY = ("torch", "numpy", "pyarrow", "sqlalchemy", "httptools", "httpx2", "uvloop", "lightkube")


def test_commands_are_frozen() -> None:
    """A command is added or removed on purpose, never by accident."""
    assert tuple(COMMANDS) == FROZEN


@pytest.mark.parametrize("command", FROZEN)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command's --help ends 0 and names the command."""
    assert invoke([command, "--help"]) == ExitCode.OK
    assert f"tradewind {command}" in capsys.readouterr().out


def test_help_loads_nothing_heavy() -> None:
    """`tradewind --help` imports no tensor, database or web library."""
    code = (
        "import sys\nfrom tradewind.cli.main import invoke\ninvoke(['--help'])\n"
        f"print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "HEAVY []" in done.stdout


TOO_SLOW = (
    *HEAVY, "cyclopts", "msgspec", "yaml", "asyncio", "httpx", "typing", "inspect", "subprocess", "dataclasses", "logging",
    "ssl", "socket", "hashlib", "tempfile", "datetime", "tradewind.spec", "tradewind.store",
)  # fmt: skip
STARTS = (
    ["--help"],
    ["run", "train.py", "--workers", "2", "--dry-run"],
    ["run", "train.py", "--dry-run", "-o", "json", "--", "--lr", "3"],
    ["why", "--from", "dump.json", "job/train"],
    ["why", "job/train", "--from", "dump.json", "-o", "json"],
)


@pytest.mark.parametrize("git", [False, True], ids=["no git", "git"])
@pytest.mark.parametrize("line", STARTS, ids=" ".join)
def test_a_start_imports_nothing_slow(line: list[str], git: bool, tmp_path: Path) -> None:
    """What needs no cluster starts without anything that takes longer to import than to start Python."""
    (tmp_path / "train.py").touch()
    (tmp_path / "dump.json").write_text(json.dumps(recorded.events_have_expired()))
    if git:
        subprocess.run(["git", "init", "-q", tmp_path], check=True)
    code = (
        f"import sys\nfrom tradewind.cli.main import invoke\nassert invoke({line!r}) == 0\n"
        f"print('SLOW', [m for m in {TOO_SLOW!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(tradewind.__file__).parents[1])},
    )
    assert done.stderr == "SLOW []\n"


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt command is a usage error that names the one that was meant."""
    assert invoke(["sevre"]) == ExitCode.USAGE
    assert "did you mean 'serve'" in capsys.readouterr().err


def test_unknown_flag_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that does not exist is refused with the usage code and named."""
    assert invoke(["ps", "--no-such-flag"]) == ExitCode.USAGE
    assert "--no-such-flag" in capsys.readouterr().err


def test_output_that_nobody_reads_is_no_error() -> None:
    """The reader has left before anything was written: the command ends quietly and well."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*TRADEWIND, "--help"], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
