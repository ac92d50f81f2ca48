"""A program compiled to native code by AOTInductor: its weights are inputs, its sizes stay dynamic.

Because weights are inputs, the code depends on the graph alone: versions that differ in their weights share it, and
no weight is ever a constant that the compiler reasoned with.
"""

import os
import pathlib
import re
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import fx
from torch.export import Dim
from torch.fx.experimental import _config

from tradewind.errors import TradewindError
from tradewind.models.manifest import Signature, Tensor
from tradewind.models.program import Program
from tradewind.models.signature import DTYPES

INDUCTOR = {
    # One thread: a check that fails inside a parallel region (an id that is no row of a table) ends the process,
    # and elsewhere is an error like any other. Matrix products are torch's own, and use its threads.
    "cpp.threads": 1,
    "cpp.dynamic_threads": False,
    "assert_indirect_indexing": True,
    "always_keep_tensor_constants": True,
    "aot_inductor.package": False,
}
"""What is asked of the compiler; a change of it needs another `FORMAT`."""
FORMAT = 1
_SYMBOL = re.compile(r"([A-Za-z_]\w*)(?: ([+-]) (\d+))?", re.ASCII)
_DTYPE_OF = {name: dtype for dtype, name in DTYPES.items()}
_PLAIN = re.compile(r"[A-Za-z0-9_ ,.>-]*", re.ASCII)
_EXAMPLE_SIZES = (5, 7, 11, 13, 17, 19, 23, 29)


class CompileError(TradewindError):
    """A program cannot be compiled here; says why. It can be served as it is."""


class Axis(NamedTuple):
    """A dimension of an input: `symbol + offset` long, or `low` where there is no symbol."""

    symbol: str | None
    offset: int
    low: int
    high: int | None


def axes(signature: Signature) -> list[list[Axis]]:
    """Return the dimensions of every input. Raises CompileError for a size that is no sum of a symbol and a number."""
    return [[_axis(tensor, i) for i in range(len(tensor.shape))] for tensor in signature.inputs]


def _axis(tensor: Tensor, i: int) -> Axis:
    size, (low, high), symbol = tensor.shape[i], tensor.range[i], tensor.symbols[i]
    if size >= 0:
        return Axis(None, 0, size, size)
    match = _SYMBOL.fullmatch(symbol or "")
    if match is None:
        raise CompileError(
            f"input {tensor.name!r}: size {symbol} of dimension {i} cannot be stated to a compiler"
        )
    offset = int(match[3] or 0) * (-1 if match[2] == "-" else 1)
    return Axis(match[1], offset, max(low, 1), high)


def bounds(axes_of: list[list[Axis]]) -> dict[str, tuple[int, int | None]]:
    """Return the smallest and the largest value of every symbol; None where there is no largest.

    Raises CompileError where they leave nothing to vary.
    """
    found: dict[str, tuple[int, int | None]] = {}
    for axis in (axis for axes in axes_of for axis in axes if axis.symbol is not None):
        assert axis.symbol is not None
        low, high = found.get(axis.symbol, (1, None))
        low = max(low, axis.low - axis.offset)
        if axis.high is not None:
            high = min(axis.high - axis.offset, axis.high if high is None else high)
        found[axis.symbol] = low, high
    for symbol, (low, high) in found.items():
        if high is not None and high <= low:
            raise CompileError(f"size {symbol} can only be {low}")
    return found


def check_plain(module: fx.GraphModule) -> None:
    """Raise CompileError for a text among the arguments that is more than words: the compiler writes it into C++ as it is.

    A package may come from anywhere, and a quote in a message would begin code of its author's.
    """
    for node in module.graph.nodes:
        for text in _texts((node.args, node.kwargs)):
            if not _PLAIN.fullmatch(text):
                raise CompileError(f"{node.name}: the text {text[:60]!r} cannot be given to a compiler")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in (*value.keys(), *value.values()):
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)


def lifted(module: fx.GraphModule) -> tuple[fx.GraphModule, list[str]]:
    """Return a copy of a program's module that takes its weights before its inputs, and their names in that order."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    names = list(dict.fromkeys(str(n.target) for n in module.graph.nodes if n.op == "get_attr"))
    weights = {name: graph.placeholder(f"weight_{i}") for i, name in enumerate(names)}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            copies[node] = weights[str(node.target)]
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return fx.GraphModule(torch.nn.Module(), graph), names


def exported(program: Program) -> tuple[torch.export.ExportedProgram, list[torch.Tensor]]:
    """Export the program anew, weights first, with the dynamic sizes of its signature; and an example of its inputs."""
    assert isinstance(program.graph_module, fx.GraphModule)
    check_plain(program.graph_module)
    module, names = lifted(program.graph_module)
    weights = [program.graph_module.get_buffer(name) for name in names]
    dimensions = axes(program.signature)
    limits = bounds(dimensions)
    sizes = _example_sizes(limits)
    inputs = [
        torch.zeros([_size(axis, sizes) for axis in shape], dtype=_DTYPE_OF[tensor.dtype])
        for shape, tensor in zip(dimensions, program.signature.inputs, strict=True)
    ]
    dims = {symbol: Dim(f"d_{symbol}", min=low, max=high) for symbol, (low, high) in limits.items()}
    shapes = [{i: _dim(axis, dims) for i, axis in enumerate(shape) if axis.symbol} for shape in dimensions]
    example = [*weights, *inputs]
    with warnings.catch_warnings(), torch.no_grad(), _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        warnings.simplefilter("ignore", FutureWarning)  # torch's own calls of what it deprecated
        found = torch.export.export(module, tuple(example), dynamic_shapes=(*({} for _ in weights), *shapes))
    return found, example


def compile_program(program: Program, folder: pathlib.Path) -> pathlib.Path:
    """Compile into a shared library under `folder`; return its path.

    Takes seconds to a minute, runs a C++ compiler, and changes this process's settings of torch: to be called in a
    process of its own. Raises CompileError with the reason where it cannot be done.
    """
    need_compiler()
    try:
        found, example = exported(program)
        module = found.module(check_guards=False)
        with torch.no_grad(), _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
            path = torch._inductor.aot_compile(module, tuple(example), options=dict(INDUCTOR))
    except CompileError:
        raise
    except Exception as error:  # torch raises all sorts; whoever asked is told
        raise CompileError(f"{type(error).__name__}: {_first_line(error)}") from error
    library = pathlib.Path(str(path))
    if folder not in library.parents:
        raise CompileError(f"the compiler wrote {library}, not into {folder}")
    return library


def need_compiler() -> str:
    """Return the C++ compiler and its version, in a line. Raises CompileError where there is none."""
    from torch._inductor import exc
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        compiler = get_cpp_compiler()
        done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=60)
    except (exc.InvalidCxxCompiler, RuntimeError, OSError, subprocess.SubprocessError):
        wanted = os.environ.get("CXX", "g++")
        raise CompileError(f"no C++ compiler ({wanted}): install g++ or clang, or name one in CXX") from None
    return done.stdout.splitlines()[0].strip() if done.stdout else compiler


def _example_sizes(limits: Mapping[str, tuple[int, int | None]]) -> dict[str, int]:
    """A size for each symbol, unlike one another and unlike 0 and 1 where that may be."""
    found = {}
    for i, (symbol, (low, high)) in enumerate(limits.items()):
        size = max(_EXAMPLE_SIZES[i % len(_EXAMPLE_SIZES)], low)
        found[symbol] = size if high is None else min(size, high)
    return found


def _size(axis: Axis, sizes: Mapping[str, int]) -> int:
    return axis.low if axis.symbol is None else sizes[axis.symbol] + axis.offset


def _dim(axis: Axis, dims: Mapping[str, Any]) -> Any:
    assert axis.symbol is not None
    dim = dims[axis.symbol]
    return dim + axis.offset if axis.offset > 0 else dim - -axis.offset if axis.offset else dim


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else "no message"
