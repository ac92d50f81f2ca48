"""Programs on a GPU: one copy there and one back a batch, through pinned memory; CUDA graphs where shapes allow.

What CUDA itself does is behind `Backend`: `serve.cuda`. `Naive` is the same on the CPU, for the tests.
"""

import bisect
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import structlog
import torch

from tradewind.serve.lost import is_lost
from tradewind.serve.profile import batch_sizes

log = structlog.get_logger()
Tensors = list[torch.Tensor]
ALIGN_BYTES = 256
"""Where a tensor may begin in a piece of memory: kernels read up to 16 bytes at once, the GPU 128."""


class Graph(NamedTuple):
    """Work that was recorded once; `replay` does it again on the same memory and leaves the result in `outputs`."""

    replay: Callable[[], None]
    outputs: Tensors


class Backend(Protocol):
    """What a device offers. Everything that is asked for inside `batch` happens in that order."""

    name: str
    warming: bool
    """The server is starting, and graphs may be captured: later nobody is to wait for that."""

    def host(self, nbytes: int) -> torch.Tensor:
        """Return memory of the CPU, UINT8 [nbytes]."""
        ...

    def memory(self, nbytes: int) -> torch.Tensor:
        """Return memory of the device, UINT8 [nbytes]."""
        ...

    def batch(self) -> contextlib.AbstractContextManager[None]:
        """What is asked for inside is done at the end, also where it failed."""
        ...

    def capture(self, run: Callable[[], Tensors]) -> Graph:
        """Record what `run` does. Raises RuntimeError for what cannot be recorded."""
        ...


class Layout(NamedTuple):
    """Tensors one behind the other in one piece of memory."""

    dtypes: tuple[torch.dtype, ...]
    shapes: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    nbytes: int

    @classmethod
    def of(cls, tensors: Sequence[torch.Tensor], rows: int | None = None) -> "Layout":
        """Return one for tensors such as these; with so many rows, where that is stated."""
        shapes = [tuple(t.shape) if rows is None else (rows, *t.shape[1:]) for t in tensors]
        starts, end = [], 0
        for tensor, shape in zip(tensors, shapes, strict=True):
            starts.append(end)
            end += -(-tensor.element_size() * _numel(shape) // ALIGN_BYTES) * ALIGN_BYTES
        return cls(tuple(t.dtype for t in tensors), tuple(shapes), tuple(starts), end)

    def views(self, flat: torch.Tensor) -> Tensors:
        """Return the tensors that lie in `flat`, UINT8 of at least `nbytes`."""
        return [
            flat[start : start + dtype.itemsize * _numel(shape)].view(dtype).view(shape)
            for dtype, shape, start in zip(self.dtypes, self.shapes, self.starts, strict=True)
        ]


class Arena:
    """A piece of memory that grows to what was once needed, and is used again by every batch."""

    def __init__(self, take: Callable[[int], torch.Tensor]) -> None:
        self._take = take
        self._flat: torch.Tensor | None = None

    def room(self, nbytes: int) -> torch.Tensor:
        """Return at least so many bytes, UINT8; what was there before is overwritten."""
        if self._flat is None or self._flat.numel() < nbytes:
            self._flat = self._take(1 << max(nbytes - 1, 1).bit_length())
        return self._flat


class Staged:
    """The inputs of a program, on both sides: written on the one, copied to the other as one piece."""

    def __init__(self, layout: Layout, host: torch.Tensor, memory: torch.Tensor) -> None:
        self._host = host[: layout.nbytes]
        self._memory = memory[: layout.nbytes]
        self._written = layout.views(host)
        self.inputs = layout.views(memory)
        """Where the program finds them."""

    def put(self, inputs: Sequence[torch.Tensor]) -> None:
        """Have the device copy these over; what they lack in rows is filled up."""
        for tensor, place in zip(inputs, self._written, strict=True):
            fill(place, tensor)
        self._memory.copy_(self._host, non_blocking=True)


class Captured(NamedTuple):
    """One batch size of a program, at one shape otherwise."""

    staged: Staged
    graph: Graph

    def run(self, inputs: Sequence[torch.Tensor]) -> Tensors:
        """Return outputs of as many rows as were captured."""
        self.staged.put(inputs)
        self.graph.replay()
        return self.graph.outputs


class OnDevice:
    """A program whose weights are on a device. It takes tensors of the CPU and returns such; one batch at a time.

    What it returns lies in memory that the next call overwrites. With `max_rows` over 1 all inputs and outputs have
    their rows in the first dimension, and rows are independent of each other, which batching assumes already. Then
    there are graphs for each of `batch_sizes(max_rows)`: a batch is filled up to the next of them with copies of its
    last row, values that a row may have, so that the program meets nothing new; what it makes of them is cut off.
    """

    def __init__(self, name: str, program: Callable[..., Any], backend: Backend, max_rows: int = 1) -> None:
        self.name = name
        self._program = program
        self._backend = backend
        self._sizes = batch_sizes(max_rows) if max_rows > 1 else []
        self._captured: dict[tuple[int, ...], Captured | None] = {}
        self._host, self._memory = Arena(backend.host), Arena(backend.memory)
        self._results = Arena(backend.host)

    @torch.inference_mode()
    def __call__(self, *inputs: torch.Tensor) -> Any:
        """Return one tensor, or a tuple, as the program does."""
        with self._backend.batch():
            captured = self._graph_for(inputs)
            outputs = self._eager(inputs) if captured is None else captured.run(inputs)
            found = self._back(outputs, None if captured is None else len(inputs[0]))
        return found[0] if len(found) == 1 else tuple(found)

    @property
    def graphs(self) -> int:
        """How many were captured."""
        return sum(captured is not None for captured in self._captured.values())

    def _graph_for(self, inputs: Sequence[torch.Tensor]) -> Captured | None:
        """Return what was captured for such inputs, or is now, at start-up; None where they run eagerly."""
        if not self._sizes or len(inputs[0]) > self._sizes[-1]:
            return None
        rows = self._sizes[bisect.bisect_left(self._sizes, len(inputs[0]))]
        key = (rows, *(size for tensor in inputs for size in tensor.shape[1:]))
        if key not in self._captured and self._backend.warming:
            self._captured[key] = self._capture(rows, inputs)
        return self._captured.get(key)

    def _eager(self, inputs: Sequence[torch.Tensor]) -> Tensors:
        layout = Layout.of(inputs)
        staged = Staged(layout, self._host.room(layout.nbytes), self._memory.room(layout.nbytes))
        staged.put(inputs)
        return self._run(staged.inputs)

    def _run(self, inputs: Tensors) -> Tensors:
        result = self._program(*inputs)
        return list(result) if isinstance(result, (tuple, list)) else [result]

    def _back(self, outputs: Tensors, rows: int | None) -> Tensors:
        """Have the outputs copied to the CPU, their first `rows` alone."""
        own = outputs if rows is None else [output[:rows] for output in outputs]
        layout = Layout.of(own)
        places = layout.views(self._results.room(layout.nbytes))
        for place, output in zip(places, own, strict=True):
            place.copy_(output, non_blocking=True)
        return places

    def _capture(self, rows: int, inputs: Sequence[torch.Tensor]) -> Captured | None:
        layout = Layout.of(inputs, rows)
        staged = Staged(layout, self._backend.host(layout.nbytes), self._backend.memory(layout.nbytes))
        try:
            staged.put(inputs)
            graph = self._backend.capture(lambda: self._run(staged.inputs))
            for some in (inputs, _others(inputs)):
                with self._backend.batch():  # the next are written where these may still be read
                    staged.put(some)
                    _check_same(self._run(staged.inputs), graph, rows)
        except (RuntimeError, ValueError) as error:
            if is_lost(error):
                raise
            log.warning("no graph", program=self.name, rows=rows, why=str(error).strip().splitlines()[0])
            return None
        return Captured(staged, graph)


def fill(place: torch.Tensor, tensor: torch.Tensor) -> None:
    """Copy a tensor to where there may be more rows; they become copies of its last one."""
    if place.shape == tensor.shape:
        place.copy_(tensor)
        return
    rows = len(tensor)
    place[:rows].copy_(tensor)
    place[rows:].copy_(tensor[-1:].expand(len(place) - rows, *tensor.shape[1:]))


def _others(inputs: Sequence[torch.Tensor]) -> Tensors:
    """Return inputs with other values, such as the program may get: integers in other rows, any floats."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(t.shape, generator=generator).to(t.dtype) if t.is_floating_point() else t.flip(0)
        for t in inputs
    ]


def _check_same(expected: Tensors, graph: Graph, rows: int) -> None:
    """Raise ValueError unless a replay gives what the program itself gave for the same inputs."""
    truth = [output.clone() for output in expected]
    graph.replay()
    for i, (output, wanted) in enumerate(zip(graph.outputs, truth, strict=True)):
        if not output.ndim or len(output) != rows:
            raise ValueError(f"output {i} has shape {list(output.shape)}, not {rows} rows")
        try:
            torch.testing.assert_close(output, wanted, equal_nan=True)
        except AssertionError as error:
            raise ValueError(f"output {i} of a replay is not that of the program: {error}") from None


def _numel(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


class Naive:
    """The CPU as if it were a device: nothing is recorded, a replay runs the program again. What the others must equal."""

    def __init__(self, warming: bool = True) -> None:
        self.name = "cpu"
        self.warming = warming

    def host(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8)

    def memory(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8)

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        yield

    def capture(self, run: Callable[[], Tensors]) -> Graph:
        outputs = [output.clone() for output in run()]

        def replay() -> None:
            for output, value in zip(outputs, run(), strict=True):
                output.copy_(value)

        return Graph(replay, outputs)
