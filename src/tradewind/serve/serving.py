"""One version of the model at work: what it answers to, its queue, its workers, and what was learnt of it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import structlog

from tradewind.errors import SpecError
from tradewind.serve import wire
from tradewind.serve.catalogue import Catalogue, settings_of
from tradewind.serve.dispatch import Dispatcher
from tradewind.serve.execution import Pool, WorkerOptions
from tradewind.serve.filtering import ItemFilters
from tradewind.serve.ladder import popular_name, program_levels
from tradewind.serve.lanes import Instant, Lane, Level, Lost
from tradewind.serve.metrics import Metrics
from tradewind.serve.popular import Popular
from tradewind.serve.profile import Profile
from tradewind.serve.quality import lost
from tradewind.serve.queues import Terms
from tradewind.serve.recommender import RecommendModel
from tradewind.serve.served import ProgramModel, ServedModel, same_ports
from tradewind.spec import EndpointSpec

log = structlog.get_logger()


class Setup(NamedTuple):
    """What every version of an endpoint is served with."""

    spec: EndpointSpec
    num_spares: int
    metrics: Metrics
    terms: Terms


class Serving:
    """A version, from `start` to `retire` or `close`."""

    def __init__(self, setup: Setup, options: WorkerOptions, version: str) -> None:
        self.version = version
        self.models: dict[str, ServedModel] = {}
        self.recommender: RecommendModel | None = None
        self.label = setup.spec.model
        self.options = options
        self.execution: Mapping[str, wire.Execution] = {}
        """How each program of the package runs."""
        self._spec = setup.spec
        self._terms = setup.terms
        self.dispatcher = Dispatcher(setup.metrics, terms=setup.terms)
        self.pool = Pool(options, setup.spec.workers, setup.num_spares, self.dispatcher.pump)
        self.dispatcher.pool = self.pool

    async def start(self, num_loaded: int = 1) -> None:
        """Load the model in so many workers; the others follow. Raises TradewindError when it cannot be loaded."""
        found = await self.pool.start(num_loaded)
        await asyncio.to_thread(
            self.adopt, *found
        )  # a large vocabulary is not to hold up who is served meanwhile

    async def retire(self) -> None:
        """Answer what there is to answer, then end; nothing may come any more."""
        await self.dispatcher.emptied()
        await self.close()

    async def close(self) -> None:
        """Stop every worker, whatever it is at."""
        await self.pool.close()

    def adopt(self, description: wire.Description, vocabulary: bytes) -> None:
        """Serve what a worker says it has loaded."""
        self.label = f"{self._spec.name or description.name}@{self.version}"
        self.execution = description.execution
        self.options = self.options._replace(digest=description.digest)
        for program, how in description.execution.items():
            log.info("program", program=program, compiled=how.compiled, why=how.why, serving=self.label)
        if description.task == "recommend":
            self._add_recommender(description, msgspec.json.decode(vocabulary, type=list[str]))
        else:
            self._add_programs(description)

    def execution_of(self, model: ServedModel) -> Mapping[str, wire.Execution]:
        """Return how a model's programs run: a recommender's are all of its package."""
        own = self.execution.get(model.program)
        return self.execution if own is None else {model.program: own}

    def _add_programs(self, description: wire.Description) -> None:
        ladder = program_levels(self._spec.levels, list(description.programs))
        same_ports(ladder, description.programs)
        for program, about in description.programs.items():
            self.models[program] = ProgramModel(program, program, about)
            chosen = ladder if ladder[:1] == [program] else [program]
            self._add_lane(program, {name: description.programs[name] for name in chosen})
        if len(description.programs) == 1:
            name = self._spec.name or description.name
            self.models[name] = ProgramModel(name, program, about)

    def _add_recommender(self, description: wire.Description, items: list[str]) -> None:
        popular = settings_of(description.config, len(items) - 1).popular
        filters = ItemFilters(description.attributes, popular)
        max_k = min(self._spec.candidates, len(items) - 1)
        catalogue = Catalogue(items, description.config, max_k, filters=filters)
        name = self._spec.name or description.name
        max_rows = description.programs["recommend"].max_rows
        self.recommender = RecommendModel(name, catalogue, max_rows)
        self.models[name] = self.recommender
        last = popular_name(self._spec.levels, popular)
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


def check_same_clients(old: Serving, new: Serving) -> None:
    """Raise SpecError unless who asks the old version can ask the new one the same."""
    for name, model in old.models.items():
        other = new.models.get(name)
        if other is None:
            known = ", ".join(new.models)
            raise SpecError(
                f"{new.label} has no model {name!r}, which clients of {old.label} ask; it has {known}"
            )
        for what, ports, others in (
            ("inputs", model.inputs, other.inputs),
            ("outputs", model.outputs, other.outputs),
        ):
            if _interface(ports) != _interface(others):
                raise SpecError(f"{new.label}: model {name!r} has other {what} than in {old.label}")


def _interface(ports: Sequence[wire.Port]) -> list[tuple[object, ...]]:
    return [(port.name, port.dtype, port.shape, port.optional) for port in ports]
