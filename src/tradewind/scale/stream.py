"""Every request of a run, fixed before the first is sent: when it is due, of which class, to which endpoint."""

import heapq
import random
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from tradewind.errors import SpecError
from tradewind.scale.outcome import LoadPlan
from tradewind.scale.schedule import SCHEDULES
from tradewind.scale.shape import make_shape, shaped_poisson


class Stream(NamedTuple):
    """Requests by number; index 0 of classes and endpoints where there is only one."""

    arrivals: "array[float]"
    """Seconds from the beginning, the warm-up included, rising."""
    kinds: "array[int]"
    endpoints: "array[int]"


class Recorded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a replay file."""

    t_s: float
    """When the request came, in seconds on any clock."""
    body: msgspec.Raw
    class_: str = msgspec.field(name="class", default="")


def make_stream(plan: LoadPlan, replay: Sequence[Recorded] = ()) -> Stream:
    """The requests of a plan; those of `replay` at their own distances over `plan.speed`, when given.

    The same plan gives the same stream on every machine. Raises SpecError for a plan that offers nothing.
    """
    pairs = _replayed(plan, replay) if replay else _generated(plan)
    arrivals, kinds = array("d"), array("H")
    for at, kind in pairs:
        arrivals.append(at)
        kinds.append(kind)
    return Stream(arrivals, kinds, _spread(plan, len(arrivals)))


def _generated(plan: LoadPlan) -> list[tuple[float, int]]:
    rates = [kind.rate for kind in plan.classes] or [plan.rate]
    merged = [
        [(at, number) for at in _arrivals(plan, rate, plan.seed + 1009 * number)]
        for number, rate in enumerate(rates)
    ]
    return merged[0] if len(merged) == 1 else list(heapq.merge(*merged))


def _arrivals(plan: LoadPlan, rate: float, seed: int) -> "array[float]":
    schedule = SCHEDULES[plan.schedule]
    if plan.shape == "steady":
        return schedule(rate, plan.warmup_s + plan.duration_s, seed)
    shape = make_shape(plan.shape, plan.peak)
    warmup = schedule(rate * shape.knots[0][1], plan.warmup_s, seed + 1) if plan.warmup_s else array("d")
    shaped = shaped_poisson(rate, plan.duration_s, seed, shape.knots)
    return warmup + array("d", (plan.warmup_s + at for at in shaped))


def _replayed(plan: LoadPlan, replay: Sequence[Recorded]) -> list[tuple[float, int]]:
    names = {kind.name: number for number, kind in enumerate(plan.classes)}
    first_s = replay[0].t_s
    for number, line in enumerate(replay, 1):
        if line.class_ and line.class_ not in names:
            raise SpecError(
                f"replay, request {number}: class {line.class_!r} is not one of the plan's; add --class "
                f"'name={line.class_}'"
            )
    return [((line.t_s - first_s) / plan.speed, names.get(line.class_, 0)) for line in replay]


def _spread(plan: LoadPlan, count: int) -> "array[int]":
    if not plan.endpoints:
        return array("H", bytes(2 * count))
    weights = [1.0, *(endpoint.weight for endpoint in plan.endpoints)]
    return array("H", random.Random(plan.seed + 7).choices(range(len(weights)), weights, k=count))


def read_replay(text: bytes, name: str) -> list[Recorded]:
    """The requests of a replay file, one JSON object a line, sorted by time. Raises SpecError naming the line."""
    decoder, lines = msgspec.json.Decoder(Recorded), []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            lines.append(decoder.decode(line))
        except msgspec.MsgspecError as error:
            raise SpecError(
                f'{name}, line {number}: {error}; a line is {{"t_s": 12.5, "body": {{...}}, "class": "high"}}'
            ) from None
    if not lines:
        raise SpecError(f"{name}: holds no request; write one JSON object a line")
    return sorted(lines, key=_time)


def _time(line: Recorded) -> Any:
    return line.t_s
