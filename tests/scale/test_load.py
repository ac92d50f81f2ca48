"""The load generator against a real server whose faults are known and counted."""

import builtins
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import pytest

from tests.services.injected import injected_server
from tradewind.errors import MissingExtraError, SpecError
from tradewind.scale import load
from tradewind.scale.histogram import Histogram
from tradewind.scale.load import execute, run_load
from tradewind.scale.outcome import Endpoint, LoadPlan, LoadResult, TrafficClass, judge
from tradewind.scale.stream import Recorded
from tradewind.scale.wire import Target, build_request, deadline_header, with_less

CALM = {"max_lag_ms": 1000.0}
"""For tests of the server's faults: a busy test machine must not take the verdict away."""


def outcomes(result: LoadResult) -> int:
    """Every offered request has exactly one outcome."""
    return result.ok + result.refused + result.errors


def test_a_known_delay_is_what_is_measured() -> None:
    """A server that takes 20 ms shows a median from 20 ms up, and all requests inside a long deadline."""
    with injected_server(delay_ms=20) as server:
        result = run_load(server.url, 100, 1.5, 2000, **CALM)
        seen = server.seen()
    assert 20 <= result.p50_ms < 60
    assert seen["requests"] == result.offered == result.sent == result.ok == result.in_deadline
    assert result.verdict == "pass"
    assert result.goodput_per_s == result.in_deadline / 1.5
    assert Histogram.from_dict(result.histogram).quantile(0.9) == result.p90_ms


def test_a_stall_is_charged_to_every_request_that_was_due_during_it() -> None:
    """One 800 ms freeze in 2 s shows in p50 to p99: no coordinated omission."""
    with injected_server(stall_at_s=0.4, stall_s=0.8) as server:
        result = run_load(server.url, 200, 2.0, 100, **CALM)
        assert server.seen()["stalls"] == 1
    assert result.p90_ms > 500
    assert result.p99_ms > 700
    assert result.verdict == "fail"
    share_late = 1 - result.attainment
    assert 0.3 < share_late < 0.6


def test_a_generator_that_cannot_keep_its_schedule_gives_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that takes 20 ms of its clock to make at 200/s leaves the generator late, and it says so."""
    spent_s = 0.0

    def slow_body(number: int) -> bytes:
        nonlocal spent_s
        spent_s += 0.02
        return b'{"n": %d}' % number

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + spent_s, time=lambda: time.time() + spent_s)
    monkeypatch.setattr(load, "time", clock)
    with injected_server() as server:
        result = run_load(server.url, 200, 1.0, 50, slow_body, timeout_s=30)
        assert server.seen()["requests"] == result.offered
    assert result.verdict == "no-verdict"
    assert not result.kept_schedule
    assert result.schedule_lag_p99_ms > 500
    assert "late at p99" in result.why


def test_too_few_connections_give_no_verdict() -> None:
    """Requests held back by the connection limit are counted and the verdict is withheld."""
    with injected_server(delay_ms=50) as server:
        result = run_load(server.url, 100, 1.0, 5000, connections=1, timeout_s=20, **CALM)
    assert result.starved > 10
    assert result.verdict == "no-verdict"
    assert "--connections" in result.why
    assert outcomes(result) == result.offered


def test_refusals_and_errors_are_told_apart() -> None:
    """429 counts as refused, 500 as an error, neither as goodput."""
    with injected_server(refuse_every=4) as server:
        refused = run_load(server.url, 200, 1.0, 1000, **CALM)
        assert server.seen()["refused"] == refused.refused
    assert refused.refused == refused.statuses["429"] > 20
    assert refused.in_deadline == refused.ok == refused.offered - refused.refused
    with injected_server(status=500) as server:
        failed = run_load(server.url, 100, 0.5, 1000, **CALM)
    assert failed.errors == failed.offered == failed.statuses["500"]
    assert (failed.goodput_per_s, failed.verdict) == (0, "fail")


def test_connections_that_close_are_replaced() -> None:
    """A server that closes after every third answer still gets every request."""
    with injected_server(close_every=3) as server:
        result = run_load(server.url, 200, 1.0, 2000, **CALM)
        assert server.seen()["requests"] == result.offered
    assert result.ok == result.offered


def test_no_answer_is_given_up_and_counts_in_the_percentiles() -> None:
    """A mute server yields errors at the age they were given up, never an empty success."""
    with injected_server(mute=True) as server:
        result = run_load(server.url, 50, 0.5, 50, timeout_s=0.4, **CALM)
    assert result.errors == result.offered == result.statuses["no answer"]
    assert result.p50_ms >= 400


def test_what_is_not_http_is_an_error_not_a_crash() -> None:
    """Garbage bytes are counted as errors that say so."""
    with injected_server(garbage=True) as server:
        result = run_load(server.url, 50, 0.5, 1000, **CALM)
    assert result.errors == result.offered
    assert all(why.startswith("not HTTP") for why in result.statuses)


def test_nobody_listening_is_an_error_for_every_request() -> None:
    """A refused connection is an outcome of each request."""
    with injected_server() as server:
        url = server.url
    result = run_load(url, 50, 0.5, 1000, **CALM)
    assert result.errors == result.offered > 0
    assert list(result.statuses) == ["connect: ConnectionRefusedError"]


def test_bodies_headers_and_deadline_arrive() -> None:
    """Bodies are replayed in turn, each request with the deadline in its header."""
    with injected_server() as server:
        run_load(server.url, 50, 0.5, 75, [b'{"a": 1}', b'{"b": 2}'], **CALM)
        seen = server.seen()
    assert seen["bodies"] == ['{"a": 1}', '{"b": 2}']
    assert "75" in seen["deadlines"]
    assert max(map(float, seen["deadlines"])) == 75


def test_a_request_that_is_sent_late_says_what_is_left() -> None:
    """With one connection and 20 ms an answer all but the first wait here; whose time is up still says a positive number."""
    with injected_server(delay_ms=20) as server:
        plan = LoadPlan(url=server.url, rate=100, duration_s=0.5, deadline_ms=75, connections=1, **CALM)
        execute(plan, [b'{"x-deadline-ms: 75": 1}'])
        seen = server.seen()
    assert seen["bodies"] == ['{"x-deadline-ms: 75": 1}']
    left = sorted(map(float, seen["deadlines"]))
    assert left[0] == 0.001
    assert set(left[1:]) <= set(range(1, 76))
    assert len(left) > 3


@pytest.mark.parametrize(
    ("deadline_ms", "late_ms", "said"),
    [(50, 3, "47"), (12.5, 4, "8.5"), (50, 49, "1"), (50, 50, "0.001"), (50, 900, "0.001")],
)
def test_what_is_left_is_said_in_the_head_alone(deadline_ms: float, late_ms: int, said: str) -> None:
    """Whatever the body is; a request that states a deadline of its own keeps it."""
    target = Target("h", 1, "/", None)
    body = f"\r\nx-deadline-ms: {deadline_ms:g}\r\n".encode()
    late = with_less(build_request(target, body, deadline_header(deadline_ms)), deadline_ms, late_ms)
    assert late == build_request(target, body, {"x-deadline-ms": said})
    own = build_request(target, body, {"x-deadline-ms": "7"})
    assert with_less(own, deadline_ms, late_ms) == own


def test_the_warm_up_is_sent_and_not_counted() -> None:
    """Requests due in the warm-up reach the server and leave no mark on the result."""
    with injected_server(stall_at_s=0.05, stall_s=0.3) as server:
        result = run_load(server.url, 100, 0.5, 200, warmup_s=1.0, **CALM)
        assert server.seen()["requests"] > result.offered + 50
    assert result.p99_ms < 200
    assert result.offered == pytest.approx(50, abs=30)


def test_another_machine_is_refused_unless_allowed() -> None:
    """Load leaves this machine only when asked to; line breaks never enter a header."""
    for url in ("http://192.0.2.1/", "http://example.invalid:80/x", "10.0.0.1:80/x"):
        with pytest.raises(SpecError, match="allow-remote"):
            run_load(url, 1, 1)
    with pytest.raises(SpecError, match="not an http"):
        run_load("ftp://127.0.0.1/", 1, 1)
    with pytest.raises(SpecError, match="line break"):
        run_load("http://127.0.0.1:1/", 1, 1, headers={"x": "a\r\nb: c"})
    with pytest.raises(SpecError, match="empty"):
        run_load("http://127.0.0.1:1/", 1, 1, bodies=[])


def test_a_missing_extra_names_its_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without httptools the message says what to install."""
    import importlib

    real = importlib.import_module

    def without(name: str, *args: Any) -> ModuleType:
        if name == "httptools":
            raise builtins.ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'tradewind\[serve\]'"):
        run_load("http://127.0.0.1:1/", 10, 0.1)


def test_classes_have_their_own_headers_deadlines_and_verdicts() -> None:
    """A class whose deadline is not met fails, and with it the run; the other passes."""
    classes = (
        TrafficClass(name="strict", rate=40, deadline_ms=1, headers={"x-tenant": "a"}),
        TrafficClass(name="calm", rate=40, deadline_ms=5000),
    )
    with injected_server(delay_ms=20) as server:
        result = execute(LoadPlan(url=server.url, rate=80, duration_s=1, classes=classes, **CALM))
        assert {"1", "5000"} <= set(server.seen()["deadlines"])
    strict, calm = result.classes
    assert (strict.verdict, strict.in_deadline, calm.verdict, calm.attainment) == ("fail", 0, "pass", 1.0)
    assert strict.offered + calm.offered == result.offered
    assert (result.verdict, result.why[:22]) == ("fail", "missed by class strict")


def test_a_shape_is_reported_by_phase_and_over_time() -> None:
    """Phases and timeline add up to the whole."""
    with injected_server() as server:
        plan = LoadPlan(
            url=server.url, rate=60, duration_s=1.5, shape="step", peak=3, deadline_ms=5000, **CALM
        )
        result = execute(plan)
    assert [phase.name for phase in result.phases] == ["before", "peak", "after"]
    assert sum(phase.offered for phase in result.phases) == result.offered
    assert sum(moment.offered for moment in result.timeline) == result.offered
    assert result.phases[1].offered > 1.5 * result.phases[0].offered
    assert result.audit is not None
    assert result.audit.connections >= 1


def test_several_endpoints_share_the_load() -> None:
    """Each server sees exactly what the result says it was sent."""
    with injected_server() as one, injected_server() as other:
        plan = LoadPlan(
            url=one.url,
            rate=100,
            duration_s=1,
            deadline_ms=5000,
            endpoints=(Endpoint(url=other.url),),
            **CALM,
        )
        result = execute(plan)
        seen = [server.seen()["requests"] for server in (one, other)]
    assert [part.offered for part in result.endpoints] == seen
    assert [part.name for part in result.endpoints] == [one.url, other.url]
    assert sum(seen) == result.offered


def test_a_replay_sends_recorded_bodies() -> None:
    """Every recorded request is sent once, with its body."""
    recorded = [Recorded(t_s=number / 100, body=msgspec.Raw(b'{"n":%d}' % number)) for number in range(8)]
    with injected_server() as server:
        result = execute(
            LoadPlan(url=server.url, rate=100, duration_s=0.07, deadline_ms=5000, **CALM), replay=recorded
        )
        assert server.seen()["bodies"] == [f'{{"n":{number}}}' for number in range(8)]
    assert result.offered == result.ok == 8


@pytest.mark.parametrize(
    ("offered", "attainment", "lag_ms", "starved", "verdict"),
    [
        (1000, 0.995, 1.0, 0, "pass"),
        (1000, 0.985, 1.0, 0, "fail"),
        (1000, 0.995, 5.1, 0, "no-verdict"),
        (1000, 0.985, 5.1, 0, "no-verdict"),
        (1000, 0.995, 1.0, 11, "no-verdict"),
        (0, 0.0, 0.0, 0, "no-verdict"),
    ],
)
def test_the_verdict(offered: int, attainment: float, lag_ms: float, starved: int, verdict: str) -> None:
    """Pass and fail follow the objective; a generator at fault has no verdict to give."""
    plan = LoadPlan(url="", rate=1, duration_s=1)
    assert judge(plan, offered, attainment, lag_ms, starved)[0] == verdict


def test_a_generator_without_a_core_to_spare_gives_no_verdict() -> None:
    """Beyond nine tenths of a core its own delays could pass for the server's."""
    plan = LoadPlan(url="", rate=1, duration_s=1)
    assert judge(plan, 100, 1.0, 0.1, 0, cpu_share=0.89)[0] == "pass"
    verdict, why = judge(plan, 100, 1.0, 0.1, 0, cpu_share=0.91)
    assert (verdict, "91% of a core" in why) == ("no-verdict", True)
