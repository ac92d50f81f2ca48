"""Traffic as a user writes it: classes and endpoints, in YAML or as flags."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tradewind import names
from tradewind.errors import SpecError
from tradewind.scale.outcome import Endpoint, TrafficClass
from tradewind.spec import Spec, parse_duration_s


class ClassSpec(Spec, frozen=True, kw_only=True):
    """One kind of traffic."""

    name: str
    rate: str | float = 0.0
    """Requests per second, or a multiple of measured capacity: 100, 0.5x. Not needed for a replay."""
    tenant: str | None = None
    priority: str | None = None
    deadline: str | None = None
    """Such as 30ms; the command's `--deadline` when not given."""
    objective: float | None = None
    """Share that must be in time; the command's `--objective` when not given."""
    headers: dict[str, str] = msgspec.field(default_factory=dict)


class TrafficSpec(Spec, frozen=True, kw_only=True):
    """A plan file: `tradewind load URL --plan traffic.yaml`."""

    classes: tuple[ClassSpec, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    shape: str = "steady"
    peak: float = 3.0


def parse_class(text: str) -> ClassSpec:
    """A class from `name=high,rate=100,tenant=a,priority=high,deadline=30ms,objective=0.99`."""
    fields: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key.strip() in fields:
            raise SpecError(
                f"--class {text!r}: write name=high,rate=100,tenant=a, each once, with commas between"
            )
        fields[key.strip()] = value.strip()
    try:
        return msgspec.convert(fields, ClassSpec, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(field for field in ClassSpec.__struct_fields__ if field != "headers")
        raise SpecError(f"--class {text!r}: {error}; the fields are {known}") from None


def parse_endpoint(text: str) -> Endpoint:
    """An endpoint from `http://127.0.0.1:8081/v1/recommend=2`: a URL and its weight, 1 when not given."""
    url, equals, weight = text.rpartition("=")
    try:
        endpoint = Endpoint(url=url, weight=float(weight)) if equals else Endpoint(url=text)
    except ValueError:
        raise SpecError(f"--endpoint {text!r}: write URL=WEIGHT, as in http://127.0.0.1:8081/=2") from None
    if not 0 < endpoint.weight < float("inf"):
        raise SpecError(f"--endpoint {text!r}: its weight must be above zero")
    return endpoint


def parse_rate(text: str | float, what: str) -> tuple[float, bool]:
    """(number, whether it is a multiple of capacity) of `200` or `0.5x`."""
    said = str(text)
    try:
        value = float(said.removesuffix("x"))
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise SpecError(f"{what} {said}: write 200 for requests per second, 0.5x for half of capacity")
    return value, said.endswith("x")


def resolve(
    specs: Sequence[ClassSpec], deadline_ms: float, objective: float, capacity: Callable[[], float]
) -> tuple[TrafficClass, ...]:
    """The classes as they are sent; `capacity` is asked only where a rate is a multiple of it."""
    repeated = {spec.name for spec in specs if [other.name for other in specs].count(spec.name) > 1}
    if repeated:
        raise SpecError(f"class {sorted(repeated)[0]!r} is given twice; each needs a name of its own")
    return tuple(_resolve(spec, deadline_ms, objective, capacity) for spec in specs)


def _resolve(
    spec: ClassSpec, deadline_ms: float, objective: float, capacity: Callable[[], float]
) -> TrafficClass:
    rate, relative = parse_rate(spec.rate, f"class {spec.name!r}: rate") if spec.rate else (1.0, False)
    named = {names.HEADER_TENANT: spec.tenant, names.HEADER_PRIORITY: spec.priority}
    return TrafficClass(
        name=spec.name,
        rate=rate * capacity() if relative else rate,
        deadline_ms=parse_duration_s(spec.deadline) * 1000 if spec.deadline else deadline_ms,
        objective=objective if spec.objective is None else spec.objective,
        headers=spec.headers | {header: value for header, value in named.items() if value},
    )
