"""Which answers are written down."""

import structlog
from structlog.testing import capture_logs

from tradewind.serve.accesslog import AUTO_PER_S, AccessLog


def lines(mode: str, codes: list[int], per_s: float = 1.0) -> list[dict]:
    """What is logged of answers with these codes, `per_s` of them a second."""
    now = iter(i / per_s for i in range(len(codes)))
    with capture_logs() as logged:
        log = AccessLog(mode, lambda: next(now))
        for i, code in enumerate(codes):
            log.write("infer", f"r{i}", code, 0.0123456, "too late" if code >= 400 else "")
    structlog.reset_defaults()
    return logged


def test_a_line_says_which_request_what_and_how_long():
    """Request id, route, code, milliseconds, and the error of a refusal."""
    ok, refused = lines("all", [200, 429])
    assert ok == {
        "event": "request", "log_level": "info", "request_id": "r0", "route": "infer", "code": 200, "ms": 12.346
    }  # fmt: skip
    assert refused["error"] == "too late"


def test_all_is_all_and_off_is_nothing():
    """Whatever the rate."""
    assert len(lines("all", [200] * 1000, per_s=1e6)) == 1000
    assert lines("off", [500] * 10) == []


def test_at_high_rates_auto_writes_failures_and_counts_the_rest():
    """The first hundred of a second, every 5xx, and how many were left out before it."""
    logged = lines("auto", [200] * (AUTO_PER_S + 50) + [503, 200, 429, 503], per_s=1e6)
    assert [line["code"] for line in logged] == [200] * AUTO_PER_S + [503, 503]
    assert [line.get("left_out") for line in logged[-2:]] == [50, 2]


def test_the_next_second_starts_afresh():
    """At 60 a second everything is written."""
    assert len(lines("auto", [200] * 200, per_s=60)) == 200
