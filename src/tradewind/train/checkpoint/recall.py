"""Take apart state that has kept its form, at a fraction of what the first time cost.

State is staged after every step, and between two steps only numbers change: the same containers
hold the same tensors in the same memory. So the JSON tree is kept, and its numbers are put in anew.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import torch

from tradewind.train.checkpoint.tree import Flattener, to_json

_TENSORS = (torch.Tensor, torch.nn.Parameter)
_BRANCHES = (dict, OrderedDict, list, tuple)


class _Changed(Exception):
    """The state is not as it was, or has parts that must be looked at every time."""


class _Unit:
    """In a plan: a value without tensors, encoded every time."""


class _Leaf:
    """In a plan: a tensor."""


@dataclass
class _Branch:
    kind: type
    keys: list[Any]
    """Of a dict; of a list or tuple its length alone."""
    children: list[Any]


@dataclass
class _Known:
    root: list[Any]
    """The tree, in a list, so that it can be replaced whole."""
    plan: Any
    names: list[str] = field(default_factory=list)
    """Of the tensors, in the order in which they are first met."""
    first: list[int] = field(default_factory=list)
    """Where among all leaves each of them is first met."""
    places: list[tuple[Any, Any]] = field(default_factory=list)
    """Where in the tree each unit stands: its container and the key in it."""
    memory: tuple[Any, ...] = ()
    form: tuple[Any, ...] = ()


class Recall:
    """Takes the same state apart again and again."""

    def __init__(self) -> None:
        self._known: _Known | None = None

    def take(self, state: dict[str, Any]) -> tuple[Flattener, bytes, tuple[Any, ...]]:
        """The flattened state, its tree as JSON, and its form: names, types, shapes and places."""
        if self._known is not None:
            try:
                return self._again(state, self._known)
            except _Changed:
                self._known = None
        flattener = Flattener()
        tree = flattener.encode(state)
        form = form_of(flattener)
        self._learn(state, tree, flattener, form)
        return flattener, to_json(tree), form

    @staticmethod
    def _again(state: Any, known: _Known) -> tuple[Flattener, bytes, tuple[Any, ...]]:
        leaves: list[torch.Tensor] = []
        units: list[Any] = []
        if known.plan is _Unit:
            units.append(state)
        else:
            _walk(state, known.plan, leaves, units)
        if _memory_of(leaves) != known.memory:
            raise _Changed
        flattener = Flattener()
        for (container, key), unit in zip(known.places, units, strict=True):
            container[key] = flattener.encode(unit)
        if flattener.tensors:
            raise _Changed  # something that had no tensors has some now
        flattener.tensors = {
            name: leaves[index] for name, index in zip(known.names, known.first, strict=True)
        }
        return flattener, to_json(known.root[0]), known.form

    def _learn(self, state: Any, tree: Any, flattener: Flattener, form: tuple[Any, ...]) -> None:
        root = [tree]
        known = _Known(root, None, form=form)
        leaves: list[torch.Tensor] = []
        try:
            known.plan = _plan(state, root, 0, known, leaves)
        except _Changed:
            return
        known.memory = _memory_of(leaves)
        if known.names == list(flattener.tensors):
            self._known = known


def form_of(flattener: Flattener) -> tuple[Any, ...]:
    """What a layout depends on."""
    tensors = flattener.tensors.values()
    return (
        list(flattener.tensors),
        [tensor.dtype for tensor in tensors],
        [tensor.shape for tensor in tensors],
        flattener.places,
    )


def _memory_of(leaves: list[torch.Tensor]) -> tuple[Any, ...]:
    """Equal for leaves that lie in memory as they did: then they have the same names, ties included."""
    return (
        [leaf.data_ptr() for leaf in leaves],
        [leaf.dtype for leaf in leaves],
        [leaf.shape for leaf in leaves],
        [leaf.stride() for leaf in leaves],
    )


def _plan(value: Any, container: Any, key: Any, known: _Known, leaves: list[torch.Tensor]) -> Any:
    """What to expect of a value whose encoding is `container[key]`."""
    kind, encoded = type(value), container[key]
    if kind in _TENSORS:
        return _leaf(value, encoded, known, leaves)
    mark = len(known.places)
    if kind in _BRANCHES:
        children = [_plan(item, inner, at, known, leaves) for item, inner, at in _children(value, encoded)]
        if any(child is not _Unit for child in children):
            return _Branch(kind, _keys(value, kind), children)
    else:
        alone = Flattener()
        alone.encode(value)
        if alone.tensors:
            raise _Changed  # an array, a DTensor, rows: looked at anew every time
    known.places[mark:] = [(container, key)]
    return _Unit


def _leaf(value: torch.Tensor, encoded: Any, known: _Known, leaves: list[torch.Tensor]) -> Any:
    # Other dtypes are stored through a copy, and an empty tensor's memory tells nothing.
    name = encoded.get("$tensor")
    if name is None or not value.data_ptr():
        raise _Changed
    if name not in known.names:
        known.names.append(name)
        known.first.append(len(leaves))
    leaves.append(value)
    return _Leaf


def _children(value: Any, encoded: Any) -> list[tuple[Any, Any, Any]]:
    """(item, where its encoding stands: container, key) of everything in a container."""
    kind = type(value)
    if kind is dict and "$dict" not in encoded:
        return [(item, encoded, key) for key, item in value.items()]
    if kind in (dict, OrderedDict):
        pairs = encoded["$dict" if kind is dict else "$ordered"]
        return [(item, pair, 1) for item, pair in zip(value.values(), pairs, strict=True)]
    items = encoded if kind is list else encoded["$tuple"]
    return [(item, items, index) for index, item in enumerate(value)]


def _keys(value: Any, kind: type) -> list[Any]:
    return list(value) if kind in (dict, OrderedDict) else [len(value)]


def _walk(value: Any, plan: _Branch, leaves: list[torch.Tensor], units: list[Any]) -> None:
    """Collect the leaves and units of a value that must be as planned."""
    kind = type(value)
    if kind is not plan.kind or _keys(value, kind) != plan.keys:
        raise _Changed
    items = value.values() if kind in (dict, OrderedDict) else value
    for item, child in zip(items, plan.children, strict=True):
        if child is _Leaf:
            if type(item) not in _TENSORS:
                raise _Changed
            leaves.append(item)
        elif child is _Unit:
            units.append(item)
        else:
            _walk(item, child, leaves, units)
