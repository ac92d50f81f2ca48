"""A packaged program, ready to call: inputs checked against the signature, outputs by name."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from tradewind.errors import SpecError
from tradewind.models.manifest import Signature, Tensor
from tradewind.models.signature import DTYPES

_AFFINE = re.compile(r"([A-Za-z_]\w*)( [+-] \d+)?", re.ASCII)
_DTYPE_OF = {name: dtype for dtype, name in DTYPES.items()}


class Program(torch.nn.Module):
    """A program of a package.

    Call it with the inputs in order or by name. Gives one tensor where the signature has one output, else a
    tuple in the signature's order; `run` gives a dict by name.
    """

    def __init__(self, name: str, module: torch.nn.Module, signature: Signature) -> None:
        super().__init__()
        self.name = name
        self.signature = signature
        self.graph_module = module
        self._names = [t.name for t in signature.inputs]

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> Any:
        outputs = self.graph_module(*self._in_order(args, kwargs))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs by name, after `check(inputs)`, without gradients."""
        self.check(inputs)
        with torch.inference_mode():
            outputs = self.graph_module(*self._in_order((), inputs))
        return {t.name: value for t, value in zip(self.signature.outputs, outputs, strict=True)}

    def check(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """Raise SpecError naming the input whose presence, dtype, rank or size does not fit the signature."""
        sizes: dict[str, tuple[int, str]] = {}
        for name in inputs.keys() - set(self._names):
            raise SpecError(f"{self.name}: no input {name!r}; it takes {', '.join(self._names)}")
        for tensor in self.signature.inputs:
            if tensor.name not in inputs:
                raise SpecError(f"{self.name}: input {tensor.name!r} is missing")
            _check_tensor(self.name, tensor, inputs[tensor.name], sizes)

    def _in_order(
        self, args: tuple[torch.Tensor, ...], kwargs: Mapping[str, torch.Tensor]
    ) -> list[torch.Tensor]:
        rest = self._names[len(args) :]
        if (
            len(args) > len(self._names)
            or rest != [n for n in rest if n in kwargs]
            or len(kwargs) != len(rest)
        ):
            raise TypeError(f"{self.name} takes {', '.join(self._names)}")
        return [*args, *(kwargs[name] for name in rest)]


def _check_tensor(program: str, spec: Tensor, value: torch.Tensor, sizes: dict[str, tuple[int, str]]) -> None:
    where = f"{program}: input {spec.name!r}"
    if value.dtype is not _DTYPE_OF[spec.dtype]:
        raise SpecError(f"{where} is {DTYPES.get(value.dtype, value.dtype)}, not {spec.dtype}")
    if value.dim() != len(spec.shape):
        raise SpecError(f"{where} has shape {list(value.shape)}, not {list(spec.shape)}")
    for axis, size in enumerate(value.shape):
        low, high = spec.range[axis]
        if size < low or (high is not None and size > high):
            wanted = f"{low}" if low == high else f"{low} to {'any' if high is None else high}"
            raise SpecError(f"{where} has size {size} in dimension {axis}, not {wanted}")
        _check_symbol(where, axis, size, spec, sizes)


def _check_symbol(where: str, axis: int, size: int, spec: Tensor, sizes: dict[str, tuple[int, str]]) -> None:
    """Sizes that share a symbol agree; `s + 1` is one more than `s`."""
    match = _AFFINE.fullmatch(spec.symbols[axis] or "")
    if match is None:
        return
    symbol, offset = match[1], int((match[2] or "0").replace(" ", ""))
    first, name = sizes.setdefault(symbol, (size - offset, spec.name))
    if first + offset != size:
        raise SpecError(
            f"{where} has size {size} in dimension {axis}, not the {first + offset} that goes with {name!r}"
        )
