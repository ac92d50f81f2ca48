"""One server process: its models, its workers, its state, what it observed."""

from collections.abc import Callable, Iterable, Mapping

import msgspec

from tradewind.serve import wire
from tradewind.serve.accesslog import AccessLog
from tradewind.serve.caller import Callers
from tradewind.serve.catalogue import Catalogue, settings_of
from tradewind.serve.dispatch import Dispatcher
from tradewind.serve.execution import Pool, WorkerOptions
from tradewind.serve.filtering import ItemFilters
from tradewind.serve.gpu_metrics import register_gpus
from tradewind.serve.http import Response
from tradewind.serve.ladder import popular_name, program_levels
from tradewind.serve.lanes import Instant, Lane, Level, Lost
from tradewind.serve.metrics import Metrics
from tradewind.serve.metrics_aliases import NvInference
from tradewind.serve.popular import Popular
from tradewind.serve.profile import Profile
from tradewind.serve.protocols.about import IndexedModel, ModelStatistics, index, statistics
from tradewind.serve.quality import lost
from tradewind.serve.queues import Terms
from tradewind.serve.recommender import RecommendModel
from tradewind.serve.served import ProgramModel, ServedModel, same_ports
from tradewind.serve.tracing import from_environment
from tradewind.serve.watch import Watcher
from tradewind.spec import EndpointSpec

LOGGED = ("infer", "recommend")
"""Routes whose every answer is an access line; of the others only errors are."""


class Replica:
    """Everything that the routes need, alive from `start` to `close`."""

    def __init__(
        self, spec: EndpointSpec, options: WorkerOptions, version: str, num_spares: int, access_log: AccessLog
    ) -> None:
        self.spec = spec
        self.version = version
        self.max_bytes = int(spec.max_request_mib * 2**20)
        self.models: dict[str, ServedModel] = {}
        self.recommender: RecommendModel | None = None
        self.label = spec.model
        self.draining = False
        self.num_connections: Callable[[], int] = lambda: 0
        classes = [c.name for c in spec.classes]
        slo_s = spec.slo.latency_ms / 1e3
        self.callers = Callers(classes, spec.default_class, spec.tenants)
        self.metrics = Metrics(slo_s, classes)
        self._terms = Terms(tuple(c.share for c in spec.classes), slo_s, self.callers.weight)
        self.dispatcher = Dispatcher(self.metrics, terms=self._terms)
        self.pool = Pool(options, spec.workers, num_spares, self.dispatcher.pump)
        self.dispatcher.pool = self.pool
        self.watchers: list[Watcher] = [NvInference(self.metrics, version).observe]
        register_gpus(self.metrics.registry)
        tracer = from_environment(spec.model)
        if tracer is not None:
            self.watchers.append(tracer)
        self._access_log = access_log
        self._restarts_seen = 0

    async def start(self) -> None:
        """Load the model in its worker. Raises TradewindError when it cannot be loaded."""
        self.adopt(*await self.pool.start())

    def adopt(self, description: wire.Description, vocabulary: bytes) -> None:
        """Serve what a worker says it has loaded."""
        self.label = f"{self.spec.name or description.name}@{self.version}"
        if description.task == "recommend":
            self._add_recommender(description, msgspec.json.decode(vocabulary, type=list[str]))
        else:
            self._add_programs(description)

    @property
    def ready(self) -> bool:
        return not self.draining and self.pool.size > 0

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
        chosen = self.models.values() if models is None else models
        metrics = list(self.metrics.registry.collect())
        return tuple(statistics(model, self.version, metrics) for model in chosen)

    def index(self) -> tuple[IndexedModel, ...]:
        """Return which models there are, and whether they are ready."""
        return index(self.models, self.version, self.ready, self.why_not_ready)

    def render_metrics(self) -> bytes:
        """Return the exposition, with the gauges brought up to date."""
        self.metrics.in_flight.set(self.dispatcher.in_flight)
        self.metrics.connections.set(self.num_connections())
        self.metrics.workers.set(self.pool.size)
        self.metrics.restarts.inc(self.pool.restarts - self._restarts_seen)
        self._restarts_seen = self.pool.restarts
        for program, profile in self.dispatcher.profiles.items():
            for rows, seconds in profile.points.items():
                self.metrics.profile.labels(program, str(rows)).set(seconds)
        return self.metrics.render()

    def _add_programs(self, description: wire.Description) -> None:
        ladder = program_levels(self.spec.levels, list(description.programs))
        same_ports(ladder, description.programs)
        for program, about in description.programs.items():
            self.models[program] = ProgramModel(program, program, about)
            chosen = ladder if ladder[:1] == [program] else [program]
            self._add_lane(program, {name: description.programs[name] for name in chosen})
        if len(description.programs) == 1:
            name = self.spec.name or description.name
            self.models[name] = ProgramModel(name, program, about)

    def _add_recommender(self, description: wire.Description, items: list[str]) -> None:
        popular = settings_of(description.config, len(items) - 1).popular
        filters = ItemFilters(description.attributes, popular)
        max_k = min(self.spec.candidates, len(items) - 1)
        catalogue = Catalogue(items, description.config, max_k, filters=filters)
        name = self.spec.name or description.name
        max_rows = description.programs["recommend"].max_rows
        self.recommender = RecommendModel(name, catalogue, max_rows)
        self.models[name] = self.recommender
        last = popular_name(self.spec.levels, popular)
        instant = Instant(last, Popular(popular, filters).answer) if last else None
        self._add_lane("recommend", description.programs, instant, lost)

    def _add_lane(
        self,
        name: str,
        programs: Mapping[str, wire.Program],
        instant: Instant | None = None,
        lost: Lost | None = None,
    ) -> None:
        levels = [
            Level(about.level or program, program, Profile(about.profile_s), about.most)
            for program, about in programs.items()
        ]
        terms = self._terms
        self.dispatcher.add_lane(Lane(name, levels, len(terms.shares), terms.slo_s, instant, lost))
