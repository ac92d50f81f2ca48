"""Commands about models, against a store on disk."""

import json
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tradewind.cli.main import invoke
from tradewind.models.manifest import Manifest, digest_of, seal
from tradewind.models.write import place
from tradewind.names import ExitCode


@pytest.fixture(autouse=True)
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TRADEWIND_STORE", raising=False)
    return tmp_path / "home"


@pytest.fixture
def package(tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
    """Write a package with no program, evaluated as given."""
    import safetensors.numpy

    count = iter(range(100))

    def package(shift: float = 0.0) -> pathlib.Path:
        values = np.random.default_rng(0).random(300, dtype=np.float32) + np.float32(shift)
        contents = {"evaluation.safetensors": safetensors.numpy.save({"ndcg@10": values})}
        manifest = Manifest(
            format=1, name="small", task="generic", created_s=0.0, programs={}, tensors=(), vocabularies=(),
            metrics={"ndcg@10": float(values.mean())}, lineage={"run": "r1"}, config={},
            files={path: digest_of(data) for path, data in contents.items()},
        )  # fmt: skip
        folder = tmp_path / f"package{next(count)}"
        place(folder, contents, seal(manifest)[1])
        return folder

    return package


def ask(capsys: pytest.CaptureFixture[str], *tokens: str, code: ExitCode = ExitCode.OK) -> Any:
    """Run one command with `-o json` and give what it printed."""
    capsys.readouterr()
    assert invoke([*tokens, "-o", "json"]) == code
    return json.loads(capsys.readouterr().out)


def test_a_model_is_published_listed_and_promoted(
    package: Callable[..., pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Publish gives NAME@N, promote moves the alias, and the list shows both."""
    assert ask(capsys, "publish", str(package()))["model"] == "small@1"
    assert ask(capsys, "publish", str(package(0.1)), "--name", "small")["model"] == "small@2"
    assert ask(capsys, "promote", "small@1", "--alias", "production")["promoted"] is True
    moved = ask(capsys, "promote", "small@2", "--metric", "ndcg@10", "--margin", "0.001")
    assert moved["verdicts"][0]["margin"] == 0.001
    rows = ask(capsys, "models", "small")
    assert [(row["model"], row["aliases"]) for row in rows] == [("small@1", []), ("small@2", ["production"])]


def test_a_worse_model_is_refused_with_its_figures(
    package: Callable[..., pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The gate's refusal exits with its own code, prints the figures, and --force overrides it."""
    for shift in (0.0, -0.05):
        ask(capsys, "publish", str(package(shift)))
    ask(capsys, "promote", "small@1")
    refused = ask(capsys, "promote", "small@2", code=ExitCode.REFUSED)
    assert refused["promoted"] is False
    assert refused["verdicts"][0]["difference"] == pytest.approx(-0.05, abs=1e-4)
    assert ask(capsys, "promote", "small@2", "--force")["why"] == "forced"


def test_the_table_names_versions_and_aliases(
    package: Callable[..., pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The table for people has one line a version."""
    ask(capsys, "publish", str(package()))
    ask(capsys, "promote", "small@1")
    capsys.readouterr()
    assert invoke(["models"]) == ExitCode.OK
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["MODEL", "ALIASES"]
    assert row.startswith("small@1")
    assert "production" in row


@pytest.mark.parametrize(
    ("tokens", "code", "said"),
    [
        (["models", "nothing"], ExitCode.NOT_FOUND, "nothing"),
        (["promote", "nothing@1"], ExitCode.NOT_FOUND, "nothing@1"),
        (["promote", "nothing"], ExitCode.USAGE, "which version"),
        (["publish", "no/such/folder"], ExitCode.NOT_FOUND, "no/such/folder"),
    ],
)
def test_what_does_not_exist_is_named(
    tokens: list[str], code: ExitCode, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown model or folder is named, with its exit code."""
    assert invoke(tokens) == code
    assert said in capsys.readouterr().err


def test_listing_and_publishing_need_no_tensor_library(package: Callable[..., pathlib.Path]) -> None:
    """`publish`, `models` and a first `promote` work where torch and numpy are not installed."""
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['torch', 'numpy', 'safetensors', 'pyarrow']))\n"
        "from tradewind.cli.main import invoke\n"
        f"codes = [invoke(['publish', {str(package())!r}]), invoke(['models']), invoke(['promote', 'small@1'])]\n"
        "print('CODES', codes)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "CODES [0, 0, 0]" in done.stdout, done.stderr
