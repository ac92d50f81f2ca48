"""Every request is fixed before the first is sent."""

import pytest

from tradewind.errors import SpecError
from tradewind.scale.outcome import Endpoint, LoadPlan, TrafficClass
from tradewind.scale.stream import make_stream, read_replay

BASE = {"url": "http://127.0.0.1:1/", "duration_s": 10.0}
CLASSES = (
    TrafficClass(name="top", rate=50, deadline_ms=10),
    TrafficClass(name="rest", rate=150, deadline_ms=50),
)


def test_classes_are_merged_in_time_order_and_independent() -> None:
    """Each class keeps its rate; adding one leaves the other's arrivals as they were."""
    stream = make_stream(LoadPlan(**BASE, rate=200, classes=CLASSES))
    assert list(stream.arrivals) == sorted(stream.arrivals)
    assert list(stream.kinds).count(0) == pytest.approx(500, abs=120)
    assert list(stream.kinds).count(1) == pytest.approx(1500, abs=200)
    alone = make_stream(LoadPlan(**BASE, rate=50, classes=CLASSES[:1]))
    pairs = zip(stream.arrivals, stream.kinds, strict=True)
    assert [at for at, kind in pairs if kind == 0] == list(alone.arrivals)


def test_requests_are_spread_by_weight() -> None:
    """An endpoint of weight 3 beside the first of weight 1 gets three quarters."""
    plan = LoadPlan(**BASE, rate=400, endpoints=(Endpoint(url="http://127.0.0.1:2/", weight=3.0),))
    stream = make_stream(plan)
    assert sum(stream.endpoints) / len(stream.endpoints) == pytest.approx(0.75, abs=0.05)


def test_the_warm_up_comes_before_a_shape() -> None:
    """A step is measured whole: its thirds begin after the warm-up, which is steady."""
    stream = make_stream(LoadPlan(**BASE, rate=100, warmup_s=5.0, shape="spike", peak=10.0))
    counts = [sum(begin <= at < begin + 1 for at in stream.arrivals) for begin in (0, 4, 9.5, 14)]
    assert counts[2] == pytest.approx(1000, abs=160)
    for count in (counts[0], counts[1], counts[3]):
        assert count == pytest.approx(100, abs=50)


def test_a_replay_keeps_its_distances() -> None:
    """Twice the speed halves them; lines may come in any order; classes are found by name."""
    text = b'{"t_s": 103.0, "body": {"a": 1}, "class": "rest"}\n\n{"t_s": 101, "body": [2], "class": "top"}\n'
    recorded = read_replay(text, "file")
    stream = make_stream(LoadPlan(**BASE, rate=1, classes=CLASSES, speed=2.0), recorded)
    assert (list(stream.arrivals), list(stream.kinds)) == ([0.0, 1.0], [0, 1])
    assert [bytes(line.body) for line in recorded] == [b"[2]", b'{"a": 1}']
    with pytest.raises(SpecError, match="class 'top'"):
        make_stream(LoadPlan(**BASE, rate=1), recorded)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "no request"),
        (b'{"t_s": 1}', "line 1"),
        (b'{"t_s": 1, "body": 1}\n{"t_s": 1, "x": 2}', "line 2"),
    ],
)
def test_a_broken_line_is_named(text: bytes, said: str) -> None:
    """The file, the line and what one looks like."""
    with pytest.raises(SpecError, match=said):
        read_replay(text, "file")
