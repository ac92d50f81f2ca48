"""tradewind.spec.units: durations and SLOs as people write them."""

import pytest

from tradewind.errors import SpecError
from tradewind.spec import SLO, parse_duration_s, parse_slo


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20s", 20),
        ("5m", 300),
        ("500ms", 0.5),
        ("1.5h", 5400),
        (" 2 s ", 2),
        ("250us", 0.00025),
        ("1d", 86400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """A number and a unit are seconds."""
    assert parse_duration_s(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize("text", ["", "5", "ms", "-5s", "0s", "5 parsecs", "1e3s", "nan s", "5s5s"])
def test_not_durations(text: str) -> None:
    """Without a unit, or not positive, is an error that says how to write one."""
    with pytest.raises(SpecError, match="500ms"):
        parse_duration_s(text)


def test_slos() -> None:
    """A latency alone is a p99; `p99.9<20ms` names its percentile."""
    assert parse_slo("50ms") == SLO(latency_ms=50.0)
    assert parse_slo("p99.9<20ms") == SLO(latency_ms=20.0, percentile=99.9)
    assert parse_slo("0.3s").latency_ms == 300.0
    for text in ("", "p50<", "p101<5ms", "fast"):
        with pytest.raises(SpecError):
            parse_slo(text)
