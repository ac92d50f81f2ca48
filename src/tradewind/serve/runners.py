"""What a worker can run: each program of a generic package, or the recommendation pipeline."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec
import torch

from tradewind.models import Package
from tradewind.models.artefacts import target
from tradewind.models.program import Program
from tradewind.retrieve import Filter
from tradewind.retrieve.attributes import Attributes
from tradewind.retrieve.kept import Kept, build_kept
from tradewind.serve import wire
from tradewind.serve.arrays import Answer, Arrays
from tradewind.serve.attributes import attributes_of, shared_out, typical
from tradewind.serve.catalogue import Settings, settings_of
from tradewind.serve.device import Backend, OnDevice
from tradewind.serve.filtering import FILTER, FILTER_BYTES
from tradewind.serve.ladder import Rung, recommender_rungs
from tradewind.serve.pipeline import Recommender
from tradewind.serve.profile import batch_sizes, measure
from tradewind.serve.programs import Programs
from tradewind.serve.samples import randomly, zeros
from tradewind.serve.tensors import from_torch, to_torch
from tradewind.spec import QualityLevel

Tensors = dict[str, torch.Tensor]
RECOMMEND = "recommend"


class Runner(Protocol):
    """One callable that the front process may name in a call."""

    def answer(self, specs: Sequence[wire.TensorSpec], arrays: Arrays) -> Answer:
        """Run on what a call brought; return what is written in the reply."""
        ...

    def describe(self, clock: Callable[[], float], repeats: int) -> wire.Program:
        """Run every batch size once to warm up and `repeats` times to measure; say what is served."""
        ...


class Rehearsed(Runner, Protocol):
    """A runner of a package's programs."""

    def answer(self, specs: Sequence[wire.TensorSpec], arrays: Arrays) -> Answer:
        return from_torch(self.run(to_torch(specs, arrays)))

    def run(self, tensors: Tensors) -> Tensors: ...

    @property
    def uses(self) -> frozenset[str]:
        """The programs that it calls."""
        ...

    def rehearse(self) -> Iterator[int]:
        """Run samples of every batch size; the size of the run that comes next is told before it."""
        ...


def runners_of(
    package: Package,
    max_batch: int,
    candidates: int,
    index: str,
    levels: Sequence[QualityLevel] = (),
    programs: Programs | None = None,
) -> dict[str, Rehearsed]:
    """Return what this package serves, by program name; a recommender's levels, best first."""
    programs = programs or Programs(package)
    if package.manifest.task == RECOMMEND:
        return _pipelines(package, programs, max_batch, candidates, index, levels)
    return {name: ProgramRunner(package, programs, name, max_batch) for name in package.manifest.programs}


def rehearse(runners: Mapping[str, Rehearsed], programs: Programs, repeats: int) -> None:
    """Try the compiled programs on samples, with the first runner that uses them, and choose which are used."""
    seen: set[str] = set()
    with programs.trial(repeats):
        for runner in runners.values():
            if not programs.tried & (runner.uses - seen):
                continue
            seen |= runner.uses
            try:
                for rows in runner.rehearse():
                    programs.batch(rows)
            except (RuntimeError, ValueError, IndexError) as error:
                # Eager cannot run these samples: nothing was found out, and a model is served without that.
                programs.refuse(runner.uses, f"its samples failed: {error}")


def recommender_of(runners: Mapping[str, Runner]) -> Recommender | None:
    """Return the pipeline among the runners; None where there is none."""
    runner = runners.get(RECOMMEND)
    return runner.recommender if isinstance(runner, PipelineRunner) else None


class ProgramRunner(Rehearsed):
    """One exported program; batched on the leading dimension where every input and output shares it."""

    def __init__(self, package: Package, programs: Programs, name: str, max_batch: int) -> None:
        self._module = programs(name)
        self._name = name
        signature = package.signature(name)
        self._inputs = tuple(_port(t) for t in signature.inputs)
        self._outputs = tuple(_port(t) for t in signature.outputs)
        self._max_rows = _max_rows((*self._inputs, *self._outputs), max_batch)

    @property
    def uses(self) -> frozenset[str]:
        return frozenset((self._name,))

    def run(self, tensors: Tensors) -> Tensors:
        result = self._module(*(tensors[p.name] for p in self._inputs))
        if isinstance(result, dict):
            return {p.name: result[p.name] for p in self._outputs}
        values = result if isinstance(result, (tuple, list)) else (result,)
        return {p.name: value for p, value in zip(self._outputs, values, strict=True)}

    def describe(self, clock: Callable[[], float], repeats: int) -> wire.Program:
        sizes = batch_sizes(self._max_rows)
        profile = measure(lambda n: self.run(self._sample(n)), sizes, clock, repeats)
        return wire.Program(
            inputs=self._inputs, outputs=self._outputs, profile_s=profile, max_rows=self._max_rows
        )

    def rehearse(self) -> Iterator[int]:
        for rows in batch_sizes(self._max_rows):
            yield rows
            sample = self._sample(rows)
            self.run(sample)
            randomly(self.run, self._inputs, sample)

    def _sample(self, rows: int) -> Tensors:
        batch_symbol = self._inputs[0].symbols[0] if self._max_rows > 1 else None
        return zeros(self._inputs, batch_symbol, rows)


def _pipelines(
    package: Package,
    programs: Programs,
    max_batch: int,
    candidates: int,
    index: str,
    levels: Sequence[QualityLevel],
) -> dict[str, Rehearsed]:
    embedding = package.tensors("items")["embedding"]
    num_items = embedding.shape[0] - 1
    settings = settings_of(package.config, num_items)
    attributes = attributes_of(package, len(embedding))
    rungs = recommender_rungs(levels, min(candidates, num_items), package.manifest.programs)
    made_from = {
        "items": package.manifest.files["tensors/items.safetensors"].sha256,
        "target": target(),
        "threads": torch.get_num_threads(),
    }
    found = build_kept(Kept(), made_from, index, embedding.numpy(), skip=1, attributes=attributes)
    whole = Recommender(programs, found, rungs[0], settings.popular, attributes)
    return {
        RECOMMEND + (f".{i}" if i else ""): PipelineRunner(
            whole.at(rung), rung, settings, num_items, max_batch, attributes
        )
        for i, rung in enumerate(rungs)
    }


class PipelineRunner(Rehearsed):
    """The recommendation pipeline at one level, measured over histories of the longest length, random items.

    Where items have attributes, every other user has a filter: a batch without any is faster than what is measured.
    """

    def __init__(
        self,
        recommender: Recommender,
        rung: Rung,
        settings: Settings,
        num_items: int,
        max_batch: int,
        attributes: Attributes | None = None,
    ) -> None:
        self.recommender = recommender
        self.rung = rung
        self._num_items = num_items
        self._features = len(settings.user_features)
        self._history = settings.max_history
        self._max_rows = max_batch
        self._filters = None if attributes is None else typical(attributes)

    @property
    def uses(self) -> frozenset[str]:
        return self.recommender.uses

    def run(self, tensors: Tensors) -> Tensors:
        return self.recommender(tensors)

    def rehearse(self) -> Iterator[int]:
        for rows in batch_sizes(self._max_rows):
            yield rows
            self.run(self._sample(rows))
            some = self._sample(rows, torch.randint(1, self._history + 1, (rows,)))
            self.run(some | {"user": torch.randn_like(some["user"])})
        self._forget_waiting()

    def describe(self, clock: Callable[[], float], repeats: int) -> wire.Program:
        sizes = batch_sizes(self._max_rows)
        profile = measure(lambda n: self.run(self._sample(n)), sizes, clock, repeats)
        self._forget_waiting()
        return wire.Program(
            inputs=(),
            outputs=(),
            profile_s=profile,
            max_rows=self._max_rows,
            level=self.rung.name,
            most=self.rung.candidates,
        )

    def _forget_waiting(self) -> None:
        if self.recommender.audit is not None:
            self.recommender.audit.forget_waiting()  # these histories are nobody's

    def _sample(self, rows: int, lengths: torch.Tensor | None = None) -> Tensors:
        """Return histories of random items; of the longest length, where none is given."""
        lengths = torch.full((rows,), self._history) if lengths is None else lengths
        total = int(lengths.sum())
        items = torch.randint(1, self._num_items + 1, (total,))
        ones = torch.ones(rows, dtype=torch.int64)
        return {
            "values": items,
            "seen": items,
            "num_seen": lengths,
            "timestamps": torch.arange(total),
            "ratings": torch.zeros(total),
            "lengths": lengths,
            "now": ones * total,
            "k": ones * 10,
            "user": torch.zeros(rows, self._features),
            **({} if self._filters is None else self._filter_tensors(self._filters, rows)),
        }

    def _filter_tensors(self, filters: list[Filter], rows: int) -> Tensors:
        texts = [msgspec.json.encode(f) if f else b"" for f in shared_out(filters, rows)]
        return {
            FILTER: torch.tensor(list(b"".join(texts)), dtype=torch.uint8),
            FILTER_BYTES: torch.tensor([len(text) for text in texts]),
        }


def programs_on(backend: Backend, package: Package, max_batch: int) -> Programs:
    """Return the programs of a package on the device behind `backend`."""
    return Programs(package, on_device=partial(program_on, backend, package, max_batch=max_batch))


def program_on(backend: Backend | None, package: Package, name: str, max_batch: int) -> Program | OnDevice:
    """Return a program of a package, on the device behind `backend` where there is one."""
    if backend is None:
        return package.program(name)
    signature = package.signature(name)
    ports = tuple(_port(t) for t in (*signature.inputs, *signature.outputs))
    program = package.program(name, device=backend.name)
    return OnDevice(name, program, backend, _max_rows(ports, max_batch))


def _port(tensor: Any) -> wire.Port:
    return wire.Port(
        name=tensor.name,
        dtype=tensor.dtype,
        shape=tensor.shape,
        range=tensor.range,
        symbols=tensor.symbols,
    )


def _max_rows(ports: tuple[wire.Port, ...], max_batch: int) -> int:
    """Return the rows one run may hold: more than one only where all ports share a dynamic first dimension."""
    first = [port.symbols[0] if port.symbols else None for port in ports]
    if first[0] is None or any(symbol != first[0] for symbol in first):
        return 1
    if any(symbol == first[0] for port in ports for symbol in port.symbols[1:]):
        return 1
    low, high = ports[0].range[0]
    return 1 if low > 1 else min(max_batch, high or max_batch)
