"""A run's plan for a cluster that is asked: whether it fits, what it costs, how long others like it waited."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tradewind.launch.kubernetes.ask import ask_of
from tradewind.launch.kubernetes.cluster import Cluster
from tradewind.launch.kubernetes.code import Code
from tradewind.launch.kubernetes.context import load_context
from tradewind.launch.kubernetes.look import PLANNING, Seen, look
from tradewind.launch.kubernetes.outlook import Outlook, outlook
from tradewind.launch.kubernetes.preview import Preview, preview_of, request_of
from tradewind.launch.kubernetes.request import Capabilities, Request, host_resources
from tradewind.launch.place import FIELD
from tradewind.launch.plan import plan
from tradewind.launch.why.amounts import amount
from tradewind.spec import RunSpec

if TYPE_CHECKING:
    from tradewind.store import Run


class Waited(msgspec.Struct, frozen=True, kw_only=True):
    """How long earlier runs of the same shape waited for their first host."""

    runs: int
    median_s: float
    p90_s: float
    waiting: int
    """Runs of the same shape that wait now."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What a cluster says about a run before it is submitted."""

    on: str
    cluster: str
    namespace: str
    outlook: Outlook
    price_per_hour: float | None
    """In the currency of the context's `prices`; None when they do not say."""
    waited: Waited | None
    """None when the store knows of no such run."""
    unread: tuple[str, ...]
    """What the user may not read, and which right is missing."""


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A run, worked out for a cluster, with what that cluster says."""

    run: Preview
    forecast: Forecast


def planned(
    spec: RunSpec, on: str, earlier: "Callable[[], Sequence[Run]]", cwd: Path | None = None
) -> Planned:
    """Work out `spec` for the cluster that `on` names, as it is now; writes nothing.

    `earlier` gives the store's runs; it is called while the cluster answers, as opening a store takes as long.
    Raises SpecError for what is wrong in the spec or the context, and ClusterError when the cluster cannot be
    asked.
    """
    context = load_context(on)
    worked_out = plan(spec, cwd, elsewhere=True)
    with Cluster(context) as cluster:
        with ThreadPoolExecutor(1) as beside:
            asked = beside.submit(observed, cluster)
            runs = earlier()
            seen, capabilities = asked.result()
        request = request_of(spec, worked_out, Code(digest=""), context, "0" * 12, capabilities)
        found = Forecast(
            on=on,
            cluster=cluster.url,
            namespace=cluster.namespace,
            outlook=outlook(ask_of(request, cluster.namespace), seen.world),
            price_per_hour=price_per_hour(request),
            waited=waited(request, on, runs),
            unread=seen.unread,
        )
    return Planned(run=preview_of(request, worked_out, on), forecast=found)


def observed(cluster: Cluster) -> tuple[Seen, Capabilities]:
    """What is there and what the cluster can do, asked side by side."""
    with ThreadPoolExecutor(1) as beside:
        capabilities = beside.submit(cluster.capabilities)
        return look(cluster, PLANNING), capabilities.result()


def price_per_hour(request: Request) -> float | None:
    """By the context's prices; None when what costs most of it, GPUs or else CPUs, has no price."""
    prices, asked = request.context.prices, host_resources(request)
    gpu_type = request.spec.resources.gpu_type
    total, main = 0.0, None
    for name, value in asked.items():
        is_gpu = name not in ("cpu", "memory") and name not in request.placement.host_resources
        price = prices.get(gpu_type, prices.get(name)) if is_gpu and gpu_type else prices.get(name)
        if is_gpu or (name == "cpu" and main is None):
            main = price
        units = amount(value) / (2**30 if name == "memory" else 1)
        total += units * (price or 0.0)
    return None if main is None else total * request.spec.hosts


def waited(request: Request, on: str, runs: Sequence["Run"]) -> Waited | None:
    """How long runs of this shape waited there; None without one that started."""
    alike = [run for run in runs if _shape(run.spec) == _shape(request.stored, on)]
    known = sorted(run.started_s - run.created_s for run in alike if run.started_s is not None)
    if not known:
        return None
    return Waited(
        runs=len(known),
        median_s=statistics.median(known),
        p90_s=known[math.ceil(0.9 * len(known)) - 1],
        waiting=sum(run.state == "pending" for run in alike),
    )


def _shape(stored: Mapping[str, Any], on: str | None = None) -> tuple[object, ...]:
    """What decides how long a run waits: where, on how many hosts, with how many GPUs of which kind."""
    place, resources = stored.get(FIELD) or {}, stored.get("resources") or {}
    hosts = stored.get("hosts", 1)
    return (
        on or place.get("on"),
        hosts,
        stored.get("workers", 1) // hosts * resources.get("gpus", 0),
        resources.get("gpu_type"),
        resources.get("mig"),
    )
