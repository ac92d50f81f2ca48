"""The shared benchmark harness: order, ratios, and the shape of its RESULT line."""

import json
import sys

import pytest

from bench import harness


def test_contenders_run_in_turn() -> None:
    """Contenders alternate, and warm-up rounds are run but not counted."""
    order: list[str] = []

    def contender(name: str, value: float):  # type: ignore[no-untyped-def]
        return lambda: order.append(name) or value

    measured = harness.interleave({"a": contender("a", 1.0), "b": contender("b", 2.0)}, repeats=2, warmup=1)
    assert order == ["a", "b"] * 3
    assert measured == {"a": [1.0, 1.0], "b": [2.0, 2.0]}


def test_ratio_is_taken_pair_by_pair() -> None:
    """A slow spell that hits both halves of a pair leaves the ratio alone."""
    assert harness.ratio([1.0, 10.0, 1.0], [2.0, 20.0, 2.0]) == harness.Figure(0.5, "ratio", 0.5, 0.5, 3)


def test_result_line_is_last_and_complete(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line is RESULT and carries name, date, machine, versions and the figures' five fields."""
    monkeypatch.setattr(sys, "argv", ["bench", "--quick"])
    harness.main("sample", lambda options: {"speed_ms": harness.Figure.of([3.0, 1.0, 2.0], "ms")})
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("RESULT ")
    result = json.loads(last.removeprefix("RESULT "))
    assert {"name", "date", "machine", "versions", "figures"} <= set(result)
    assert result["figures"] == {"speed_ms": {"value": 2.0, "unit": "ms", "low": 1.0, "high": 3.0, "n": 3}}
