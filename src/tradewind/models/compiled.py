"""A compiled program at work: checks what it is given, hands over weights and inputs, gives what eager gives."""

import pathlib

import torch
from torch import fx

from tradewind.models.compile import axes, bounds, lifted
from tradewind.models.program import Program
from tradewind.models.signature import DTYPES

_DTYPE_OF = {name: dtype for dtype, name in DTYPES.items()}
_UNBOUNDED = 1 << 62
MOST_KNOWN = 4096


class Compiled:
    """The library of a program, loaded. Its weights are the eager program's own tensors: there is no second copy."""

    def __init__(self, library: pathlib.Path, program: Program) -> None:
        """Raises RuntimeError where the library cannot be loaded."""
        assert isinstance(program.graph_module, fx.GraphModule)
        self._weights = [program.graph_module.get_buffer(name) for name in lifted(program.graph_module)[1]]
        dimensions = axes(program.signature)
        bounds(dimensions)
        self._wants = [
            (_DTYPE_OF[tensor.dtype], tuple((a.symbol, a.offset, a.low, a.high or _UNBOUNDED) for a in shape))
            for tensor, shape in zip(program.signature.inputs, dimensions, strict=True)
        ]
        self._known: set[tuple[object, ...]] = set()
        """Forms of inputs that were found to fit: looking one up takes a fraction of finding it out."""
        self._runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(library), 1)

    def fits(self, inputs: tuple[torch.Tensor, ...]) -> bool:
        """Whether these are inputs that it was compiled for. It reads memory by these sizes, so that all must be true."""
        form = tuple([(value.shape, value.dtype, value.is_cpu) for value in inputs])
        if form in self._known:
            return True
        if not self._fit(inputs):
            return False
        if len(self._known) < MOST_KNOWN:
            self._known.add(form)
        return True

    def _fit(self, inputs: tuple[torch.Tensor, ...]) -> bool:
        sizes: dict[str, int] = {}
        for value, (dtype, shape) in zip(inputs, self._wants, strict=True):
            if value.dtype is not dtype or value.dim() != len(shape) or not value.is_cpu:
                return False
            for size, (symbol, offset, low, high) in zip(value.shape, shape, strict=True):
                if not low <= size <= high:
                    return False
                if symbol is not None and sizes.setdefault(symbol, size - offset) != size - offset:
                    return False
        return True

    def __call__(self, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        """Return the outputs, in the signature's order, for inputs that fit. Raises RuntimeError as eager would."""
        return self._runner.run([*self._weights, *(value.contiguous() for value in inputs)])
