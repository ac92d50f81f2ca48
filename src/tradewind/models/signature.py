"""What a program takes and gives, read from its exported graph, in Open Inference Protocol words."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils._sympy.value_ranges import bound_sympy

from tradewind.errors import SpecError
from tradewind.models.manifest import Signature, Tensor

DTYPES: dict[torch.dtype, str] = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.uint16: "UINT16",
    torch.uint32: "UINT32",
    torch.uint64: "UINT64",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}


def signature_of(program: ExportedProgram, output_names: Sequence[str] | None = None) -> Signature:
    """The signature of an exported program.

    Output names are `output_names`, else the keys of the dict that forward returns, else output, or output_0...
    """
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    ranges = program.range_constraints
    specs = program.graph_signature
    inputs = [s.arg.name for s in specs.input_specs if s.kind is InputKind.USER_INPUT]
    outputs = [s.arg.name for s in specs.output_specs if s.kind is OutputKind.USER_OUTPUT]
    names = list(output_names or _output_names(program, len(outputs)))
    if len(names) != len(outputs) or len(set(names)) != len(names):
        raise SpecError(f"output names {names} do not name the program's {len(outputs)} outputs")
    return Signature(
        inputs=tuple(_tensor(name, values.get(name), ranges) for name in inputs),
        outputs=tuple(
            _tensor(name, values.get(node), ranges) for name, node in zip(names, outputs, strict=True)
        ),
    )


def _output_names(program: ExportedProgram, count: int) -> list[str]:
    spec = program.call_spec.out_spec
    if spec is not None and spec.type is dict and spec.num_leaves == len(spec.context):
        return [str(key) for key in spec.context]
    return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]


def _tensor(name: str, value: Any, ranges: Mapping[Any, Any]) -> Tensor:
    if not isinstance(value, torch.Tensor) or value.dtype not in DTYPES:
        raise SpecError(f"{name!r} is {type(value).__name__}; a program takes and gives dense tensors only")
    symbols = [None if isinstance(d, int) else str(d) for d in value.shape]
    return Tensor(
        name=name,
        dtype=DTYPES[value.dtype],
        shape=tuple(d if isinstance(d, int) else -1 for d in value.shape),
        range=tuple(_range(d, ranges) for d in value.shape),
        symbols=tuple(symbols),
    )


def _range(dimension: Any, ranges: Mapping[Any, Any]) -> tuple[int, int | None]:
    if isinstance(dimension, int):
        return dimension, dimension
    bounds = bound_sympy(dimension.node.expr, dict(ranges))
    upper = int(bounds.upper) if bounds.upper.is_Integer else None
    return int(bounds.lower) if bounds.lower.is_Integer else 0, upper
