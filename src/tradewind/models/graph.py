"""A `torch.export` graph as plain JSON, and back, without pickle, `eval` or free attribute look-up.

`torch.export.load` unpickles example inputs and constants, parses shape expressions with
`sympy.sympify` (which evaluates Python), and resolves any `torch.<name>` as an operator. A package may come
from anywhere, so the graph is written here as a list of operators from a closed set, and read back the same way.
"""

import contextlib
import keyword
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from tradewind.errors import IntegrityError, SpecError

FORMAT = 1

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{
        f"operator.{f.__name__}": f
        for f in (
            *(
                operator.getitem,
                operator.add,
                operator.sub,
                operator.mul,
                operator.floordiv,
                operator.truediv,
            ),
            *(operator.mod, operator.neg, operator.pow, operator.eq, operator.ne, operator.lt, operator.le),
            *(operator.gt, operator.ge, operator.and_, operator.or_, operator.not_),
        )
    },
    **{f"math.{f.__name__}": f for f in (math.ceil, math.floor, math.trunc)},
    **{
        f"torch.{f.__name__}": f
        for f in (torch.sym_max, torch.sym_min, torch.sym_not, torch.sym_float, torch.sym_int, torch.sym_ite)
    },
}
_FUNCTION_NAMES = {function: name for name, function in _FUNCTIONS.items()}
_NAMESPACES = frozenset({"aten", "prims"})
_REFUSED_OPERATORS = frozenset({"aten.from_file", "aten.save"})
_SCALARS = frozenset({"number", "SymInt"})
_OPERATOR = re.compile(r"(\w+)\.(\w+)\.(\w+)", re.ASCII)
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_WEIGHT = re.compile(r"\w+(\.\w+)*", re.ASCII)

_DTYPES = {str(d).removeprefix("torch."): d for d in vars(torch).values() if isinstance(d, torch.dtype)}
_LAYOUTS = {str(x): x for x in (torch.strided, torch.sparse_coo)}
_MEMORY_FORMATS = {str(x): x for x in (torch.contiguous_format, torch.preserve_format, torch.channels_last)}


def normalize(program: ExportedProgram) -> ExportedProgram:
    """The same program in functional ATen, with `no_grad` regions inlined and no decomposition applied."""
    if program.dialect != "TRAINING":
        return program
    with warnings.catch_warnings():
        # torch copies its own tree specs with a call it deprecated itself.
        warnings.simplefilter("ignore", FutureWarning)
        functional: ExportedProgram = program.run_decompositions({})
    return functional


def to_json(program: ExportedProgram) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The graph of `program` and the tensors it reads, by name.

    Raises SpecError for what a stateless served program cannot hold: a mutated buffer, a custom object, an
    operator outside the closed set.
    """
    tensors: dict[str, torch.Tensor] = {}
    weights: dict[str, str] = {}
    stored: dict[Any, str] = {}
    inputs: list[str] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            assert spec.target is not None
            tensor = _tensor_of(program, spec.target)
            key = stored.setdefault(_storage_of(tensor) or spec.target, spec.target)
            weights[spec.arg.name] = key
            tensors[key] = tensor
        elif spec.kind is InputKind.USER_INPUT:
            inputs.append(spec.arg.name)
        else:
            raise SpecError(
                f"program input {spec.arg.name!r} is a {spec.kind.name}; only tensors are packaged"
            )
    for out in program.graph_signature.output_specs:
        if out.kind is not OutputKind.USER_OUTPUT:
            raise SpecError(
                f"the program writes to {out.target!r} ({out.kind.name}); a served program keeps no state, "
                "call model.eval() before export"
            )
    for node in program.graph.nodes:
        if node.op == "get_attr":
            raise SpecError(
                f"the program calls the nested graph {node.target!r}; control flow cannot be packaged"
            )
    nodes = [_node_to_json(node) for node in program.graph.nodes if node.op == "call_function"]
    output = next(node for node in program.graph.nodes if node.op == "output")
    graph = {
        "format": FORMAT,
        "torch": str(torch.__version__),
        "inputs": inputs,
        "weights": weights,
        "nodes": nodes,
        "outputs": _encode(list(output.args[0])),
    }
    return graph, tensors


def from_json(
    graph: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], *, source: str, device: str = "cpu"
) -> fx.GraphModule:
    """The module that runs `graph` on `tensors`; inputs are positional, the result is a list of outputs.

    Raises IntegrityError naming `source` when the graph is not one `to_json` writes.
    """
    try:
        return _build(graph, tensors, torch.device(device))
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        RecursionError,
        RuntimeError,
    ) as error:
        raise IntegrityError(f"{source}: not a program graph: {error}") from error


def _build(
    graph: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], device: torch.device
) -> fx.GraphModule:
    if graph["format"] != FORMAT:
        raise ValueError(f"format {graph['format']!r}, this version reads {FORMAT}")
    root, result = torch.nn.Module(), fx.Graph()
    nodes = _Nodes()
    for name in graph["inputs"]:
        nodes.define(name, result.placeholder(_checked(_NAME, name)))
    attributes: dict[str, str] = {}
    for name, key in graph["weights"].items():
        if key not in attributes:
            # Attribute names are ours: fx writes them into the Python it generates.
            attributes[key] = f"w{len(attributes)}_{_checked(_WEIGHT, key).replace('.', '_')}"
            root.register_buffer(attributes[key], tensors[key].to(device))
        nodes.define(name, result.get_attr(attributes[key]))
    for node in graph["nodes"]:
        target = _target(node["target"])
        args = tuple(_decode(a, nodes, device) for a in node["args"])
        kwargs = {_checked(_NAME, k): _decode(v, nodes, device) for k, v in node["kwargs"].items()}
        name = _checked(_NAME, node["name"])
        nodes.define(name, result.create_node("call_function", target, args, kwargs, name))
    result.output(_decode(graph["outputs"], nodes, device))
    return fx.GraphModule(root, result)


class _Nodes(dict[str, fx.Node]):
    """Nodes by the name they have in the file; each name is defined once."""

    def define(self, name: Any, node: fx.Node) -> None:
        if _checked(_NAME, name) in self:
            raise ValueError(f"{name!r} is defined twice")
        self[name] = node


def _tensor_of(program: ExportedProgram, target: str) -> torch.Tensor:
    value: torch.Tensor = (
        program.state_dict[target] if target in program.state_dict else program.constants[target]
    )
    return value.detach()


def _storage_of(tensor: torch.Tensor) -> tuple[Any, ...] | None:
    """What two tied weights have in common; None for an empty tensor, whose address means nothing."""
    if tensor.numel() == 0:
        return None
    return tensor.data_ptr(), tensor.dtype, tensor.device, tuple(tensor.shape), tensor.stride()


def _node_to_json(node: fx.Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "target": _target_name(node.target),
        "args": [_encode(a) for a in node.args],
        "kwargs": {k: _encode(v) for k, v in node.kwargs.items()},
    }


def _target_name(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        name = f"{target.namespace}.{target._opname}.{target._overloadname}"
        with contextlib.suppress(ValueError):
            _target(name)
            return name
    elif target in _FUNCTION_NAMES:
        return _FUNCTION_NAMES[target]
    raise SpecError(f"operator {target} cannot be packaged: only ATen operators without side effects can")


def _target(name: str) -> Callable[..., Any]:
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    namespace, operation, overload = _checked(_OPERATOR, name).split(".")
    if namespace not in _NAMESPACES or f"{namespace}.{operation}" in _REFUSED_OPERATORS:
        raise ValueError(f"operator {name!r} is not allowed")
    packet = getattr(getattr(torch.ops, namespace), operation)
    if overload not in packet.overloads():
        raise ValueError(f"operator {name!r} does not exist in torch {torch.__version__}")
    target: Callable[..., Any] = getattr(packet, overload)
    schema = target._schema  # type: ignore[attr-defined]
    types = [str(x.type) for x in (*schema.arguments, *schema.returns)]
    if schema.is_mutable or not any("Tensor" in t or t in _SCALARS for t in types):
        raise ValueError(f"operator {name!r} has side effects")
    return target


def _encode(value: Any) -> Any:
    match value:
        case None | bool() | str():
            return value
        case int():
            return value
        case float():
            return value if math.isfinite(value) else {"float": repr(value)}
        case fx.Node():
            return {"node": value.name}
        case list() | tuple():
            return [_encode(v) for v in value]
        case torch.dtype():
            return {"dtype": str(value).removeprefix("torch.")}
        case torch.device():
            return {"device": value.type}
        case torch.layout():
            return {"layout": str(value)}
        case torch.memory_format():
            return {"memory_format": str(value)}
    raise SpecError(f"a program argument of type {type(value).__name__} cannot be packaged: {value!r}")


def _decode(value: Any, nodes: Mapping[str, fx.Node], device: torch.device) -> Any:
    match value:
        case list():
            return [_decode(v, nodes, device) for v in value]
        case {"node": str(name)}:
            return nodes[name]
        case {"float": "inf" | "-inf" | "nan" as text}:
            return float(text)
        case {"dtype": str(name)}:
            return _DTYPES[name]
        case {"device": str()}:
            return device
        case {"layout": str(name)}:
            return _LAYOUTS[name]
        case {"memory_format": str(name)}:
            return _MEMORY_FORMATS[name]
        case None | bool() | int() | float() | str():
            return value
    raise ValueError(f"unknown argument {value!r}")


def _checked(pattern: re.Pattern[str], text: Any) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text) or keyword.iskeyword(text):
        raise ValueError(f"{text!r} is not a name")
    return text
