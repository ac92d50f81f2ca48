"""Traffic as flags and as a file say the same."""

import pathlib

import pytest

from tradewind.errors import SpecError
from tradewind.scale.outcome import Endpoint
from tradewind.scale.plan import ClassSpec, TrafficSpec, parse_class, parse_endpoint, parse_rate, resolve
from tradewind.spec import decode, load_yaml

PLAN = """
classes:
  - {name: top, rate: 0.5x, priority: high, tenant: a}
  - {name: rest, rate: 150, deadline: 100ms, objective: 0.9}
endpoints:
  - {url: "http://127.0.0.1:8081/v1/recommend", weight: 2}
shape: spike
peak: 4
"""


def never() -> float:
    raise AssertionError("nobody needs the capacity")


def test_a_file_and_flags_mean_the_same(tmp_path: pathlib.Path) -> None:
    """Each class, endpoint and number reads alike in both."""
    file = tmp_path / "traffic.yaml"
    file.write_text(PLAN)
    read = load_yaml(file, TrafficSpec)
    flags = (
        "name=top,rate=0.5x,priority=high,tenant=a",
        "name=rest, rate=150, deadline=100ms, objective=0.9",
    )
    typed = tuple(map(parse_class, flags))
    said = [resolve(classes, 50.0, 0.99, lambda: 800.0) for classes in (read.classes, typed)]
    assert said[0] == said[1]
    assert read.endpoints == (parse_endpoint("http://127.0.0.1:8081/v1/recommend=2"),)
    assert (read.shape, read.peak) == ("spike", 4.0)


def test_classes_take_what_they_do_not_say_from_the_command() -> None:
    """Half of capacity, the command's deadline and objective; headers for who asks; capacity only where needed."""
    top, rest = resolve(decode(TrafficSpec, PLAN).classes, 50.0, 0.99, lambda: 800.0)
    assert (top.rate, top.deadline_ms, top.objective) == (400.0, 50.0, 0.99)
    assert top.headers == {"x-tenant": "a", "x-priority": "high"}
    assert (rest.rate, rest.deadline_ms, rest.objective, rest.headers) == (150.0, 100.0, 0.9, {})
    assert resolve([ClassSpec(name="a", rate=5.0)], 50.0, 0.99, never)[0].rate == 5.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classes: [{name: a, rat: 1}]", "rat"),
        ("endpoints: [{url: x, wieght: 1}]", "wieght"),
        ("clases: []", "clases"),
        ("peak: high", "peak"),
    ],
)
def test_an_unknown_field_is_named(text: str, said: str) -> None:
    """A typing error is not silently a default."""
    with pytest.raises(SpecError, match=said):
        decode(TrafficSpec, text)


def test_rates_and_endpoints_as_written() -> None:
    """Numbers, multiples, weights; a URL with a query keeps its equals sign only where a weight follows."""
    assert (parse_rate("200", "--rate"), parse_rate("0.5x", "--rate")) == ((200.0, False), (0.5, True))
    assert parse_endpoint("http://127.0.0.1:1/") == Endpoint(url="http://127.0.0.1:1/", weight=1.0)
    assert parse_endpoint("http://127.0.0.1:1/?a=b=2") == Endpoint(url="http://127.0.0.1:1/?a=b", weight=2.0)
    for wrong in ("0", "-1", "x", "nan", "inf", "1y"):
        with pytest.raises(SpecError, match="for half of capacity"):
            parse_rate(wrong, "--rate")
    for wrong in ("http://127.0.0.1:1/=0", "http://127.0.0.1:1/=nan"):
        with pytest.raises(SpecError, match="weight"):
            parse_endpoint(wrong)
    for wrong in ("name", "name=a,name=b"):
        with pytest.raises(SpecError, match="each once"):
            parse_class(wrong)
