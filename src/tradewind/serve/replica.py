"""One server process: the version that it serves, its state, what it observed."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

import structlog

from tradewind.errors import TradewindError
from tradewind.serve.accesslog import AccessLog
from tradewind.serve.caller import Callers
from tradewind.serve.execution import WorkerOptions
from tradewind.serve.features.open import FeatureStore
from tradewind.serve.gpu_metrics import register_gpus
from tradewind.serve.http import Response
from tradewind.serve.metrics import Metrics
from tradewind.serve.metrics_aliases import NvInference
from tradewind.serve.protocols.about import IndexedModel, ModelStatistics, index, statistics
from tradewind.serve.queues import Terms
from tradewind.serve.served import ServedModel
from tradewind.serve.serving import Serving, Setup, check_same_clients
from tradewind.serve.tracing import from_environment
from tradewind.serve.watch import Watcher
from tradewind.spec import EndpointSpec

log = structlog.get_logger()
LOGGED = ("infer", "recommend")
"""Routes whose every answer is an access line; of the others only errors are."""


class Replica:
    """Everything that the routes need, alive from `start` to `close`."""

    def __init__(
        self, spec: EndpointSpec, options: WorkerOptions, version: str, num_spares: int, access_log: AccessLog
    ) -> None:
        self.spec = spec
        self.max_bytes = int(spec.max_request_mib * 2**20)
        self.draining = False
        self.num_connections: Callable[[], int] = lambda: 0
        classes = [c.name for c in spec.classes]
        slo_s = spec.slo.latency_ms / 1e3
        self.callers = Callers(classes, spec.default_class, spec.tenants)
        self.metrics = Metrics(slo_s, classes)
        self.terms = Terms(tuple(c.share for c in spec.classes), slo_s, self.callers.weight)
        self.features = None if spec.features is None else FeatureStore(spec.features, self.metrics.registry)
        """What is known of users, whatever the version."""
        self._setup = Setup(spec, num_spares, self.metrics, self.terms)
        self.serving = Serving(self._setup, options, version)
        """The version that answers what comes now; whoever takes a request keeps to the one of that moment."""
        self._ending: dict[Serving, asyncio.Task[None]] = {}
        self._aliases = NvInference(self.metrics, version)
        self.metrics.observe_version(version)
        self.watchers: list[Watcher] = [self._aliases.observe]
        register_gpus(self.metrics.registry)
        tracer = from_environment(spec.model)
        if tracer is not None:
            self.watchers.append(tracer)
        self._access_log = access_log
        self._restarts_seen: dict[Serving, int] = {}

    async def start(self) -> None:
        """Load the model in its worker. Raises TradewindError when it cannot be loaded."""
        await self.serving.start()
        if self.features is not None:
            await self.features.start()

    async def load(self, options: WorkerOptions, version: str) -> Serving:
        """Load and warm up a version beside the one that serves: all its workers, and the spares.

        Raises TradewindError where it cannot be loaded, or could not answer the clients of this one.
        """
        new = Serving(self._setup, options, version)
        try:
            await new.start(self.spec.workers + self._setup.num_spares)
            check_same_clients(self.serving, new)
            if not new.pool.size:
                raise TradewindError(f"the workers of {new.label} ended as soon as they were loaded")
        except BaseException:  # also when the alias moves on meanwhile: nobody else knows of its workers
            await new.close()
            raise
        return new

    def switch(self, new: Serving) -> None:
        """Have a loaded version answer what comes from now on; the old one answers what it has, and ends."""
        old, self.serving = self.serving, new
        self._aliases.adopt(new.version)
        self.metrics.observe_version(new.version)
        log.info("switched", version=new.version, before=old.version, still_there=old.dispatcher.in_flight)
        self._ending[old] = asyncio.ensure_future(self._end(old))

    async def close(self) -> None:
        """Stop every worker."""
        if self.features is not None:
            await self.features.close()
        for task in self._ending.values():
            task.cancel()
        await asyncio.gather(*self._ending.values(), return_exceptions=True)
        await asyncio.gather(*(serving.close() for serving in self._alive))

    @property
    def label(self) -> str:
        """What answers now, as `name@version`."""
        return self.serving.label

    @property
    def in_flight(self) -> int:
        """Requests that are queued or running, at every version."""
        return sum(serving.dispatcher.in_flight for serving in self._alive)

    @property
    def ready(self) -> bool:
        return not self.draining and self.serving.pool.size > 0

    @property
    def why_not_ready(self) -> str:
        return "draining" if self.draining else "no model worker is loaded"

    def observe(
        self, route: str, request_id: str, response: Response, seconds: float, in_deadline: bool
    ) -> None:
        """Count, time and log one answer."""
        self.metrics.observe_request(route, response.status, seconds, in_deadline)
        if route in LOGGED or response.status >= 400:
            error = bytes(response.body).decode() if response.status >= 400 else ""
            self._access_log.write(route, request_id, response.status, seconds, error)

    def statistics(self, models: Iterable[ServedModel] | None = None) -> tuple[ModelStatistics, ...]:
        """Return the statistics of these models, else of all."""
        chosen = self.serving.models.values() if models is None else models
        metrics = list(self.metrics.registry.collect())
        return tuple(statistics(model, self.serving.version, metrics) for model in chosen)

    def index(self) -> tuple[IndexedModel, ...]:
        """Return which models there are, and whether they are ready."""
        return index(self.serving.models, self.serving.version, self.ready, self.why_not_ready)

    def render_metrics(self) -> bytes:
        """Return the exposition, with the gauges brought up to date."""
        self.metrics.in_flight.set(self.in_flight)
        self.metrics.connections.set(self.num_connections())
        self.metrics.observe_places(place.where for serving in self._alive for place in serving.pool.places)
        for serving in self._alive:
            self._count_restarts(serving)
        for program, profile in self.serving.dispatcher.profiles.items():
            for rows, seconds in profile.points.items():
                self.metrics.profile.labels(program, str(rows)).set(seconds)
        for model in {model.program: model for model in self.serving.models.values()}.values():
            for program, how in self.serving.execution_of(model).items():
                self.metrics.compiled.labels(model.program, program).set(how.compiled)
        return self.metrics.render()

    @property
    def _alive(self) -> Sequence[Serving]:
        return (*self._ending, self.serving)

    async def _end(self, old: Serving) -> None:
        await old.retire()
        self._count_restarts(old)
        del self._ending[old], self._restarts_seen[old]
        log.info("ended", version=old.version)

    def _count_restarts(self, serving: Serving) -> None:
        seen = self._restarts_seen.get(serving, 0)
        self.metrics.restarts.inc(serving.pool.restarts - seen)
        self._restarts_seen[serving] = serving.pool.restarts
