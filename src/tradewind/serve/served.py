"""What the front process knows of a model: its ports, how a request becomes a job, how a result is read."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from tradewind.errors import SpecError
from tradewind.serve.errors import RequestError
from tradewind.serve.jobs import Prepared, Tensor
from tradewind.serve.protocols.values import Value
from tradewind.serve.wire import Port, Program


class ServedModel(Protocol):
    """One model of the v2 protocol."""

    @property
    def name(self) -> str: ...
    @property
    def program(self) -> str: ...
    @property
    def inputs(self) -> tuple[Port, ...]: ...
    @property
    def outputs(self) -> tuple[Port, ...]: ...
    @property
    def max_rows(self) -> int: ...
    def prepare(self, inputs: Mapping[str, Value], parameters: Mapping[str, object]) -> Prepared: ...
    def k_of(self, parameters: Mapping[str, object]) -> int | None:
        """Return the size of the answer that is asked for, where it has one."""
        ...

    def finish(self, tensors: Mapping[str, Tensor], parameters: Mapping[str, object]) -> dict[str, Value]: ...


class ProgramModel:
    """A program of a generic package, served as it was exported."""

    def __init__(self, name: str, program: str, description: Program) -> None:
        self.name = name
        self.program = program
        self.inputs = description.inputs
        self.outputs = description.outputs
        self.max_rows = description.max_rows

    def prepare(self, inputs: Mapping[str, Value], parameters: Mapping[str, object]) -> Prepared:
        """Check inputs against the signature. Raises RequestError naming the input that differs."""
        check_names(self.inputs, inputs)
        sizes: dict[str, int] = {}
        tensors = {}
        for port in self.inputs:
            value = inputs[port.name]
            check_port(port, value, sizes)
            assert not isinstance(value.data, list)
            tensors[port.name] = Tensor(value.dtype, value.shape, value.data)
        if self.max_rows == 1:
            return Prepared(tensors, 1, object())
        rows = inputs[self.inputs[0].name].shape[0]
        check_rows(rows, self.max_rows)
        return Prepared(tensors, rows, tuple(t.shape[1:] for t in tensors.values()))

    def k_of(self, parameters: Mapping[str, object]) -> int | None:
        return None

    def finish(self, tensors: Mapping[str, Tensor], parameters: Mapping[str, object]) -> dict[str, Value]:
        return {name: Value(*tensor) for name, tensor in tensors.items()}


def same_ports(ladder: Sequence[str], programs: Mapping[str, Program]) -> None:
    """Raise SpecError unless programs that stand for one another take and give the same."""
    for name in ladder[1:]:
        for ports, others, what in (
            (programs[ladder[0]].inputs, programs[name].inputs, "inputs"),
            (programs[ladder[0]].outputs, programs[name].outputs, "outputs"),
        ):
            if [(p.name, p.dtype, p.shape) for p in ports] != [(p.name, p.dtype, p.shape) for p in others]:
                raise SpecError(f"EndpointSpec: levels: {name!r} has other {what} than {ladder[0]!r}")
        if programs[name].max_rows < programs[ladder[0]].max_rows:
            raise SpecError(f"EndpointSpec: levels: {name!r} takes smaller batches than {ladder[0]!r}")


def check_names(ports: tuple[Port, ...], inputs: Mapping[str, Value]) -> None:
    """Raise RequestError unless the inputs are the ports, each with the right type and rank."""
    known = {port.name: port for port in ports}
    for name in inputs:
        if name not in known:
            raise RequestError(400, f"unexpected input {name!r}; the inputs are {', '.join(known)}")
    for port in ports:
        if port.name not in inputs and not port.optional:
            raise RequestError(400, f"input {port.name!r} is missing")


def check_rows(rows: int, max_rows: int) -> None:
    """Raise RequestError unless 1 <= rows <= max_rows."""
    if not 1 <= rows <= max_rows:
        raise RequestError(400, f"the batch has {rows} rows; this model takes 1 to {max_rows}")


def check_port(port: Port, value: Value, sizes: dict[str, int]) -> None:
    if value.dtype != port.dtype:
        raise RequestError(400, f"input {port.name!r}: datatype is {port.dtype}, not {value.dtype}")
    if len(value.shape) != len(port.shape):
        raise _misfit(port, value)
    for i, (size, want) in enumerate(zip(value.shape, port.shape, strict=True)):
        if want >= 0 and size != want:
            raise _misfit(port, value)
        low, high = port.range[i] if port.range else (0, None)
        if want < 0 and (size < low or (high is not None and size > high)):
            raise _misfit(port, value, f": dimension {i} must be {low} to {high or 'any'}")
        symbol = port.symbols[i] if port.symbols else None
        if symbol is not None and sizes.setdefault(symbol, size) != size:
            raise _misfit(port, value, f": dimension {i} must be {sizes[symbol]} as elsewhere")


def _misfit(port: Port, value: Value, why: str = "") -> RequestError:
    shapes = f"shape {list(value.shape)} does not fit {list(port.shape)}"
    return RequestError(400, f"input {port.name!r}: {shapes}{why}")
