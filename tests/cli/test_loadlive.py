"""What a person sees while load is sent, and after it."""

import sys

import pytest

from tests.console.build import load_result
from tradewind.cli.loadlive import audited, describe, live_line, show_slices
from tradewind.scale.load import Progress
from tradewind.scale.outcome import Audit, Slice


def test_progress_is_one_line() -> None:
    """Shares are of what has an outcome; before the first there is none."""
    line = describe(Progress(12.4, 20.0, 4_812, 90, 5, 3, 2, 0.34))
    assert line.startswith("12/20 s  due 4,812  in time 90.0%  late 5  refused 3  errors 2  own lag 0.3 ms")
    assert "in time -" in describe(Progress(0.0, 20.0, 0, 0, 0, 0, 0, 0.0))


def test_nothing_is_drawn_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """No terminal, or JSON wanted: no line; on a terminal there is one."""
    with live_line("table") as watch:
        assert watch is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with live_line("json") as watch:
        assert watch is None
    with live_line("table") as watch:
        assert watch is not None
        watch(Progress(1.0, 2.0, 10, 9, 1, 0, 0, 0.1))


def test_parts_and_the_generators_own_state_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A class with its verdict, a phase with its settling time, and what the generator says of itself."""
    from msgspec.structs import replace

    part = Slice(
        name="top", begin_s=0.0, end_s=10.0, offered=100, in_deadline=99, refused=1, errors=0,
        goodput_per_s=9.9, attainment=0.99, p50_ms=1.0, p99_ms=2.0, verdict="pass",
    )  # fmt: skip
    audit = Audit(cpu_share=0.31, switched_out=7, connections=12, clock_step_ms=0.0)
    result = load_result(1, 100, 1, 2, 3, 4, 0)
    shown = replace(result, classes=(part,), phases=(replace(part, name="peak", settle_s=0.15),), audit=audit)
    show_slices(shown)
    out = capsys.readouterr().out
    last = {line.split()[0]: line.split()[-1] for line in out.splitlines() if line}
    assert (last["top"], last["peak"]) == ("pass", "0.15")
    assert "31% of a core" in audited(shown)
    assert audited(result) == ""
