"""The command line as a whole: what it lists, what it loads, how it fails."""

import subprocess
import sys

import pytest

from tradewind.cli.main import COMMANDS, invoke
from tradewind.names import ExitCode

FROZEN = (
    "run", "plan", "render", "rerun", "ps", "show", "logs", "why", "resize", "stop", "chaos", "publish", "models", "promote",
    "serve", "deploy", "endpoints", "undeploy", "keys", "load", "report", "doctor",
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


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt command is a usage error that names the one that was meant."""
    assert invoke(["sevre"]) == ExitCode.USAGE
    assert "did you mean 'serve'" in capsys.readouterr().err


def test_unknown_flag_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that does not exist is refused with the usage code and named."""
    assert invoke(["ps", "--no-such-flag"]) == ExitCode.USAGE
    assert "--no-such-flag" in capsys.readouterr().err
