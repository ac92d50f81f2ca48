"""A package's programs as the worker calls them: eagerly, or compiled where that gives the same sooner.

Eager is the oracle. A compiled program is tried on samples of every batch size before it answers anybody: one that
gives something else, fails, or is not faster stays unused, and `execution` says why.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch

from tradewind.errors import TradewindError
from tradewind.models import Package
from tradewind.models.artefacts import Artefacts, key_of
from tradewind.models.compiled import Compiled
from tradewind.models.program import Program
from tradewind.serve.device import OnDevice
from tradewind.serve.trial import Outputs, Trial
from tradewind.serve.wire import Execution

REST = 100
"""Calls answered eagerly after a compiled one failed: a failure costs it milliseconds, and eager microseconds."""
NOT_BUILT = "not compiled for this machine; `tradewind compile` or `serve --compile` does that"

NOT_FOR_GPUS = "programs are compiled for the CPU; on a GPU they run as graphs"


class Running:
    """One program at work; called like `Program`."""

    def __init__(self, eager: Program | OnDevice, compiled: Compiled | None, why: str) -> None:
        self.name = eager.name
        self.eager = eager
        self.compiled = compiled
        self.trial: Trial | None = None
        self.execution = Execution(why=why)
        self._resting = 0

    def __call__(self, *inputs: torch.Tensor) -> Any:
        if self.compiled is None or not self.compiled.fits(inputs):
            return self.eager(*inputs)
        if self.trial is not None:
            return _unpacked(self.trial(inputs))
        if self._resting:
            self._resting -= 1
            return self.eager(*inputs)
        try:
            return _unpacked(self.compiled(inputs))
        except RuntimeError:
            # What eager says of these inputs is what the client is told.
            self._resting = REST
            return self.eager(*inputs)

    def settle(self, given: bool) -> None:
        """End the trial: use what was compiled, or let go of it."""
        assert self.trial is not None
        self.execution = self.trial.verdict(given)
        self.trial = None
        if not self.execution.compiled:
            self.compiled = None


class Programs:
    """Hands out the programs of a package; each is loaded once."""

    def __init__(
        self,
        package: Package,
        artefacts: Artefacts | None = None,
        given: Collection[str] | None = None,
        on_device: Callable[[str], Program | OnDevice] | None = None,
    ) -> None:
        """`given`: the programs to run compiled, as measured before; None where that is to be found out.

        `on_device` loads a program where they are not to run on the CPU; nothing is compiled then.
        """
        self._package = package
        self._artefacts = artefacts
        self._given = given
        self._on_device = on_device
        self._running: dict[str, Running] = {}

    def __call__(self, name: str) -> Running:
        """Return a program. Raises NotFoundError where the package has none of this name."""
        if name not in self._running:
            self._running[name] = self._load(name)
        return self._running[name]

    @property
    def execution(self) -> dict[str, Execution]:
        """How each program that was handed out runs."""
        return {name: running.execution for name, running in self._running.items()}

    @contextlib.contextmanager
    def trial(self, repeats: int, clock: Callable[[], float] = time.perf_counter) -> Iterator["Programs"]:
        """Try what is compiled on the calls made in the block, and choose at its end."""
        given = self._given is not None
        tried = [r for r in self._running.values() if r.compiled is not None]
        for running in tried:
            assert running.compiled is not None
            assert isinstance(running.eager, Program)
            running.trial = Trial(running.eager, running.compiled, clock, 0 if given else repeats)
        yield self
        for running in tried:
            running.settle(given)

    @property
    def tried(self) -> frozenset[str]:
        """The programs that are on trial."""
        return frozenset(name for name, running in self._running.items() if running.trial is not None)

    def batch(self, rows: int) -> None:
        """Say of how many rows the calls are that follow."""
        for running in self._running.values():
            if running.trial is not None:
                running.trial.rows = rows

    def refuse(self, names: Collection[str], why: str) -> None:
        """Take programs for failed that are on trial."""
        for name in self.tried & set(names):
            trial = self._running[name].trial
            assert trial is not None
            trial.fail(why)

    def _load(self, name: str) -> Running:
        if self._on_device is not None:
            return Running(self._on_device(name), None, NOT_FOR_GPUS)
        program = self._package.program(name)
        return Running(program, *self._compiled(program))

    def _compiled(self, program: Program) -> tuple[Compiled | None, str]:
        if self._artefacts is None:
            return None, "compiled programs are not asked for"
        if self._given is not None and program.name not in self._given:
            return None, "the worker that tried it did not choose it, or was lost"
        try:
            found = self._artefacts.find(key_of(self._package, program))
            return (None, NOT_BUILT) if found is None else (Compiled(found[0], program), "")
        except (TradewindError, OSError, RuntimeError) as error:
            return None, str(error).splitlines()[0][:300]


def _unpacked(outputs: Outputs) -> Any:
    return outputs[0] if len(outputs) == 1 else tuple(outputs)
