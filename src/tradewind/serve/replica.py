"""One server process: its models, its workers, its state, what it observed."""

from collections.abc import Callable

import msgspec

from tradewind.serve import wire
from tradewind.serve.accesslog import AccessLog
from tradewind.serve.catalogue import Catalogue
from tradewind.serve.dispatch import Dispatcher
from tradewind.serve.execution import Pool, WorkerOptions
from tradewind.serve.gpu_metrics import register_gpus
from tradewind.serve.http import Response
from tradewind.serve.metrics import Metrics
from tradewind.serve.metrics_aliases import NvInference
from tradewind.serve.profile import Profile
from tradewind.serve.recommender import RecommendModel
from tradewind.serve.served import ProgramModel, ServedModel
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
        self.metrics = Metrics(spec.slo.latency_ms / 1e3)
        self.dispatcher = Dispatcher(self.metrics)
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
        for program, about in description.programs.items():
            self.dispatcher.add_program(program, Profile(about.profile_s))
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
        for program, about in description.programs.items():
            self.models[program] = ProgramModel(program, program, about)
        if len(description.programs) == 1:
            name = self.spec.name or description.name
            self.models[name] = ProgramModel(name, program, about)

    def _add_recommender(self, description: wire.Description, items: list[str]) -> None:
        catalogue = Catalogue(items, description.config, min(self.spec.candidates, len(items) - 1))
        name = self.spec.name or description.name
        max_rows = description.programs["recommend"].max_rows
        self.recommender = RecommendModel(name, catalogue, max_rows)
        self.models[name] = self.recommender
