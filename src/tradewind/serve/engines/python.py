"""A Python class as a model: `tradewind serve ranker.py:Ranker`.

The class is the user's own code and runs in the worker, as a script of theirs would; nothing that arrives over the
network names it. It says what it takes and gives, and is called with whole batches:

    class Ranker:
        inputs = {"features": "FP32[-1, 64, 128]"}
        outputs = {"scores": "FP32[-1, 64]"}

        def __call__(self, features: np.ndarray) -> np.ndarray: ...

A leading -1 in every shape means that requests may be joined along it; without one, each request runs alone. A class
with several outputs returns a dict by name. `sample(rows)`, where there is one, returns the inputs that start-up is
measured with, by name; zeros otherwise.
"""

import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tradewind.errors import SpecError
from tradewind.serve import wire
from tradewind.serve.arrays import Answer, Array, Arrays, from_arrays
from tradewind.serve.engines.reference import split
from tradewind.serve.profile import batch_sizes, measure
from tradewind.serve.protocols.values import NUMPY

SAMPLE_DIMENSION = 8
MODULE = "tradewind_served_model"
"""What the user's file is called once it is imported, so that no file hides a library."""
_PORT = re.compile(r"(?P<dtype>[A-Z0-9]+)\[(?P<shape>-?\d+(?:, *-?\d+)*)\]")


class PythonRunner:
    """One object of the user's class, made once and called with batches."""

    def __init__(self, reference: str, max_batch: int) -> None:
        cls = _load(reference)
        self._inputs = _ports(cls, "inputs")
        self._outputs = _ports(cls, "outputs")
        joined = all(port.shape[0] == -1 for port in (*self._inputs, *self._outputs))
        self._max_rows = max_batch if joined else 1
        self._model = cls()

    def answer(self, specs: Sequence[wire.TensorSpec], arrays: Arrays) -> Answer:
        return from_arrays(self.run(arrays))

    def run(self, arrays: Arrays) -> Arrays:
        # Copies: where the arrays lie comes the next batch, and a user's class may keep what it was given.
        result = self._model(**{name: array.copy() for name, array in arrays.items()})
        if not isinstance(result, Mapping):
            result = {self._outputs[0].name: result}
        return {port.name: _output(port, result) for port in self._outputs}

    def describe(self, clock: Callable[[], float], repeats: int) -> wire.Program:
        profile = measure(
            lambda rows: self.run(self._sample(rows)), batch_sizes(self._max_rows), clock, repeats
        )
        return wire.Program(
            inputs=self._inputs, outputs=self._outputs, profile_s=profile, max_rows=self._max_rows
        )

    def _sample(self, rows: int) -> Arrays:
        if hasattr(self._model, "sample"):
            given = self._model.sample(rows)
            return {port.name: np.asarray(given[port.name], NUMPY[port.dtype]) for port in self._inputs}
        return {port.name: _zeros(port, rows) for port in self._inputs}


def _load(reference: str) -> type[Any]:
    file, name = split(reference)
    spec = importlib.util.spec_from_file_location(MODULE, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    sys.path.insert(0, str(file.parent))
    spec.loader.exec_module(module)
    cls = getattr(module, name, None)
    if not isinstance(cls, type):
        raise SpecError(f"{file} has no class {name}")
    return cls


def _ports(cls: type[Any], what: str) -> tuple[wire.Port, ...]:
    stated = getattr(cls, what, None)
    if not isinstance(stated, Mapping) or not stated:
        raise SpecError(f"{cls.__name__}.{what} must name the tensors, such as {{'x': 'FP32[-1, 128]'}}")
    return tuple(_port(f"{cls.__name__}.{what}[{name!r}]", name, text) for name, text in stated.items())


def _port(where: str, name: str, text: str) -> wire.Port:
    match = _PORT.fullmatch(text)
    if match is None or match["dtype"] not in NUMPY:
        raise SpecError(f"{where} is {text!r}; write a type and a shape, such as FP32[-1, 128]")
    shape = tuple(int(size) for size in match["shape"].split(","))
    if any(size < -1 or size == 0 for size in shape):
        raise SpecError(f"{where} is {text!r}; a dimension is at least 1, or -1 for any")
    range_ = tuple((1, None) if size < 0 else (size, size) for size in shape)
    return wire.Port(name=name, dtype=match["dtype"], shape=shape, range=range_)


def _output(port: wire.Port, result: Mapping[str, Any]) -> Array:
    if port.name not in result:
        raise ValueError(f"the model returned no {port.name!r}")
    array = np.ascontiguousarray(result[port.name], dtype=NUMPY[port.dtype])
    if array.ndim != len(port.shape):
        raise ValueError(f"the model returned {port.name!r} of shape {list(array.shape)}")
    return array


def _zeros(port: wire.Port, rows: int) -> Array:
    rest = [size if size > 0 else SAMPLE_DIMENSION for size in port.shape[1:]]
    first = rows if port.shape[0] == -1 else port.shape[0]
    return np.zeros((first, *rest), NUMPY[port.dtype])
