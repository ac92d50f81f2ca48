"""From what was typed to what `tradewind load` sends."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tradewind.scale.outcome import LoadPlan
    from tradewind.scale.plan import TrafficSpec
    from tradewind.scale.stream import Recorded


def traffic(
    plan: Path | None,
    classes: list[str] | None,
    endpoints: list[str] | None,
    shape: str | None,
    peak: float | None,
) -> "TrafficSpec":
    """The plan file, if any, with what the flags add to it or put in its place."""
    from msgspec.structs import replace

    from tradewind.scale.plan import TrafficSpec, parse_class, parse_endpoint
    from tradewind.scale.shape import make_shape
    from tradewind.spec import load_yaml

    asked = load_yaml(plan, TrafficSpec) if plan else TrafficSpec()
    asked = replace(
        asked,
        classes=(*asked.classes, *map(parse_class, classes or ())),
        endpoints=(*asked.endpoints, *map(parse_endpoint, endpoints or ())),
        shape=shape or asked.shape,
        peak=asked.peak if peak is None else peak,
    )
    make_shape(asked.shape, asked.peak)
    return asked


def plans(
    common: dict[str, Any],
    rate: list[str] | None,
    asked: "TrafficSpec",
    recorded: "list[Recorded]",
    bodies: Any,
) -> "Iterator[LoadPlan]":
    """A plan for each `--rate`, or one where classes or a replay say what is sent; exactly one may say it."""
    import functools

    from tradewind.errors import SpecError
    from tradewind.scale.outcome import LoadPlan
    from tradewind.scale.plan import resolve

    if bool(rate) + bool(recorded or asked.classes) != 1:
        raise SpecError("say how much to send by one of --rate, --class (or --plan) and --replay")
    shaped = common | {"endpoints": asked.endpoints, "shape": asked.shape, "peak": asked.peak}
    about = (common["url"], bodies, common["deadline_ms"], common["headers"], common["allow_remote"])
    capacity = functools.cache(lambda: measure_capacity(*about))
    classes = resolve(asked.classes, common["deadline_ms"], common["objective"], capacity)
    if recorded:
        yield replay_plan(shaped | {"classes": classes}, recorded)
    elif classes:
        yield LoadPlan(**shaped, classes=classes, rate=sum(kind.rate for kind in classes))
    for per_s, multiple in rates(rate, *about) if rate else ():
        yield LoadPlan(**shaped, rate=per_s, multiple=multiple)


def replay_plan(common: dict[str, Any], recorded: "list[Recorded]") -> "LoadPlan":
    """The plan of a replay: as long as the recording, without warm-up; a shape would bend what was recorded."""
    from tradewind.errors import SpecError
    from tradewind.scale.outcome import LoadPlan

    if common["shape"] != "steady":
        raise SpecError("--replay has a shape of its own; leave --shape out")
    seconds = max((recorded[-1].t_s - recorded[0].t_s) / common["speed"], 1e-3)
    return LoadPlan(**common | {"duration_s": seconds, "warmup_s": 0.0}, rate=len(recorded) / seconds)


def rates(
    texts: list[str], url: str, bodies: Any, deadline_ms: float, headers: dict[str, str], allow_remote: bool
) -> list[tuple[float, float | None]]:
    """Each `--rate` as (requests per second, multiple of capacity or None); measures capacity if asked to."""
    from tradewind.scale.plan import parse_rate

    parsed = [parse_rate(text, "--rate") for text in texts]
    if not any(relative for _, relative in parsed):
        return [(value, None) for value, _ in parsed]
    capacity = measure_capacity(url, bodies, deadline_ms, headers, allow_remote)
    return [(value * capacity, value) if relative else (value, None) for value, relative in parsed]


def measure_capacity(
    url: str, bodies: Any, deadline_ms: float, headers: dict[str, str], allow_remote: bool
) -> float:
    """The highest goodput per second of the endpoint, found by a closed loop and said on stderr."""
    from tradewind.scale.capacity import find_capacity

    found = find_capacity(url, bodies, deadline_ms=deadline_ms, headers=headers, allow_remote=allow_remote)
    print(f"capacity: {found.per_s:.0f}/s with {found.concurrency} connections", file=sys.stderr)
    return found.per_s


def read_recorded(path: Path, speed: float) -> "list[Recorded]":
    """The requests of a replay file."""
    from tradewind.errors import SpecError
    from tradewind.scale.stream import read_replay

    if not path.is_file():
        raise SpecError(f'--replay {path}: no such file; it holds one {{"t_s": 1.5, "body": {{...}}}} a line')
    if not 0 < speed < float("inf"):
        raise SpecError(f"--speed {speed}: must be above zero")
    return read_replay(path.read_bytes(), str(path))


def read_bodies(path: Path) -> list[bytes]:
    """The JSON bodies of a file, one a line; names the first line that is not JSON."""
    import json

    from tradewind.errors import SpecError

    if not path.is_file():
        raise SpecError(f"--body {path}: no such file; it holds one JSON body a line")
    bodies = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            json.loads(line)
        except ValueError as error:
            raise SpecError(f"{path}, line {number}: not JSON ({error}); one body a line") from error
        bodies.append(line.strip())
    if not bodies:
        raise SpecError(f"{path}: holds no body; write one JSON body a line")
    return bodies


def parse_header(text: str) -> tuple[str, str]:
    """A header from 'name: value'."""
    from tradewind.errors import SpecError

    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise SpecError(f"--header {text!r}: write it as 'name: value'")
    return name.strip(), value.strip()
