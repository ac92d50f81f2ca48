"""`tradewind compile`: what it says of each program, to people and to programs."""

import json

import pytest

from tests.services.compiled import write_small
from tradewind.cli.main import invoke
from tradewind.names import ExitCode

pytestmark = pytest.mark.timeout(600)  # the first that asks for it waits for the compiler


def test_each_program_has_its_figures_and_a_verdict(compiled, monkeypatch, capfd):
    """What was compiled before is not compiled again; progress is on standard error."""
    monkeypatch.setenv("TRADEWIND_HOME", str(compiled.home))
    assert invoke(["compile", str(compiled.package.path), "-o", "json"]) == ExitCode.OK
    printed = capfd.readouterr()
    rows = {row["program"]: row for row in json.loads(printed.out)}
    assert printed.err.splitlines() == [f"{name}: compiled before" for name in ("pool", "score", "twin")]
    score = rows["score"]
    assert [timing["rows"] for timing in score["timings"]] == [1, 2, 4, 8, 16, 32, 64]
    assert score["difference"] <= 1e-4
    assert score["compiled"] == (score["why"] == "")


def test_people_read_a_line_for_each_batch_size(compiled, monkeypatch, capfd):
    """The first has the verdict."""
    monkeypatch.setenv("TRADEWIND_HOME", str(compiled.home))
    assert invoke(["compile", str(compiled.package.path)]) == ExitCode.OK
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert lines[0] == ["PROGRAM", "ROWS", "EAGER_MS", "COMPILED_MS", "DIFFERENCE", "VERDICT"]
    assert [line[:2] for line in lines[1:4]] == [["pool", "1"], ["score", "1"], ["-", "2"]]


def test_without_a_compiler_it_fails_and_says_what_to_install(tmp_path, monkeypatch, capfd):
    """For each program; they can be served all the same."""
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CXX", "nonesuch")
    write_small(tmp_path / "small")
    assert invoke(["compile", str(tmp_path / "small")]) == ExitCode.FAILED
    printed = capfd.readouterr()
    assert printed.err.count("no C++ compiler (nonesuch): install g++ or clang") == 3
    assert "eager: no C++ compiler" in printed.out


def test_a_class_of_a_file_is_refused(tmp_path, monkeypatch, capsys):
    """There is no graph to compile."""
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    (tmp_path / "mine.py").write_text("class Mine: ...")
    assert invoke(["compile", f"{tmp_path}/mine.py:Mine"]) == ExitCode.USAGE
    assert "only packages are compiled" in capsys.readouterr().err
