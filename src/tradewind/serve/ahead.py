"""Compile a package ahead of serving it, and say what came of it: `tradewind compile`."""

import subprocess
from collections.abc import Iterator

import msgspec
import torch

from tradewind.errors import SpecError
from tradewind.models import building, open_package
from tradewind.models.artefacts import Artefacts
from tradewind.models.building import Built
from tradewind.serve.engines.reference import is_reference
from tradewind.serve.placement import here, places
from tradewind.serve.programs import Programs
from tradewind.serve.runners import rehearse, runners_of
from tradewind.serve.server import Located
from tradewind.serve.wire import Execution
from tradewind.spec import EndpointSpec

REPEATS = 15
"""Runs of each sample, eagerly and compiled in turn: here there is time for more than at a start."""


def build(located: Located) -> Iterator[Built]:
    """Compile what is not compiled yet, in a process of its own; say of each program what became of it.

    Raises SpecError for a class of a file, TradewindError where that process was ended.
    """
    if is_reference(str(located.path)):
        raise SpecError(f"{located.path}: only packages are compiled, not classes of a file")
    process = subprocess.Popen(
        building.command(str(located.path), located.digest),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=building.environment(),
    )
    assert process.stdout is not None
    with process:
        try:
            for line in process.stdout:
                yield msgspec.json.decode(line, type=Built)
            building.check_end(process.wait())
        finally:
            process.kill()


def try_out(located: Located, spec: EndpointSpec) -> dict[str, Execution]:
    """Try what is compiled as a worker of this endpoint does when it starts; return how each program would run."""
    torch.set_num_threads(places(here(()), spec.workers)[0].threads)
    package = open_package(located.path, digest=located.digest or None)
    programs = Programs(package, Artefacts())
    runners = runners_of(package, spec.max_batch, spec.candidates, spec.index, spec.levels, programs)
    with torch.inference_mode():
        rehearse(runners, programs, REPEATS)
    return programs.execution
