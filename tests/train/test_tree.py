"""State to JSON and tensors, and back."""

import json
import math
from collections import Counter, OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tradewind.errors import TradewindError
from tradewind.train.checkpoint.tree import Flattener, decode


def through(value: Any) -> Any:
    """The value after it was flattened, written as JSON, and decoded."""
    flattener = Flattener()
    text = json.dumps(flattener.encode(value), allow_nan=False)
    return decode(json.loads(text), flattener.tensors)


def same(left: Any, right: Any) -> bool:
    """Equal in type, value and order, bit for bit."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, dict):
        return len(left) == len(right) and all(map(same, left.items(), right.items()))
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return (math.isnan(left) and math.isnan(right)) or math.copysign(1, left) * left == math.copysign(
            1, right
        ) * right
    return bool(left == right)


CASES: dict[str, Any] = {
    "scalars": [None, True, 0, -1, 2**80, 0.1, -0.0, 1e-320, math.inf, -math.inf, math.nan, "", "\u00e9$"],
    "keys": {1: "a", "1": "b", None: "c", (1, 2): "d", 2.5: "e"},
    "dollar": {"$tensor": 1},
    "dollar_inside": {"a": {"$tuple": [1]}, "$b": 2},
    "tuples": ((), (1, (2, [3, ()])), [[]]),
    "ordered": OrderedDict([("b", 1), ("a", 2)]),
    "counter": Counter({3: 2, 1: 1}),
    "bytes": b"\x00\xff",
    "torch": [torch.float32, torch.bfloat16, torch.device("cpu"), torch.Size([2, 3])],
    "arrays": [np.arange(6, dtype=np.uint32).reshape(2, 3), np.zeros(0), np.float32(1.5), np.int64(-3)],
    "big_endian": np.arange(3, dtype=">i4"),
}


@pytest.mark.parametrize("name", CASES)
def test_round_trip(name: str) -> None:
    """State comes back with the same types, values and order."""
    assert same(through(CASES[name]), CASES[name])


DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.complex128,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_round_trip(dtype: torch.dtype) -> None:
    """Tensors of any layout in memory come back equal: views, scalars, empty and transposed ones."""
    base = (torch.arange(12) % 5).to(dtype)
    state = [base, base[3:7], base.reshape(3, 4).t(), base[2], base[:0], torch.zeros(0, 4, dtype=dtype)]
    assert same(through(state), state)


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
keys = st.text(max_size=3) | st.integers() | st.tuples(st.integers(), st.text(max_size=2)) | st.just("$tuple")


@given(
    st.recursive(
        plain,
        lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(keys, inner),
        max_leaves=12,
    )
)
def test_any_nesting_round_trips(value: Any) -> None:
    """Whatever is nested of plain values, lists, tuples and dicts comes back the same."""
    assert same(through(value), value)


def test_shared_tensors_are_stored_once_and_stay_shared() -> None:
    """Tied weights take the room of one and come back as one."""
    weight = nn.Parameter(torch.randn(3))
    flattener = Flattener()
    flattener.encode({"a": weight, "b": weight.data, "c": weight[:2]})
    assert len(flattener.tensors) == 2
    back = through({"a": weight, "b": weight})
    assert back["a"] is back["b"]


def test_names_that_collide_are_kept_apart() -> None:
    """`{"a.b": x}` and `{"a": {"b": y}}` are two tensors."""
    state = {"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}}
    assert same(through(state), state)


REFUSED = {
    "a lambda": lambda: None,
    "a set": {1, 2},
    "a module": nn.Linear(1, 1),
    "an object array": np.array([object()]),
    "a sparse tensor": torch.eye(2).to_sparse(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_pickle_is_refused_by_its_path(name: str) -> None:
    """State that only pickle could hold is refused, naming where it is."""
    with pytest.raises(TradewindError, match=r"optimizer\.state\.1\.what"):
        Flattener().encode({"optimizer": {"state": [0, {"what": REFUSED[name]}]}})


def optimizers(parameters: list[nn.Parameter]) -> list[torch.optim.Optimizer]:
    optim = torch.optim
    return [
        optim.AdamW(parameters, amsgrad=True),
        optim.SGD([{"params": parameters[:1], "momentum": 0.9}, {"params": parameters[1:]}], lr=0.1),
        optim.Adagrad(parameters),
        optim.LBFGS(parameters, history_size=3),
        optim.Rprop(parameters),
    ]


@pytest.mark.parametrize("index", range(5))
def test_optimizers_round_trip(index: int) -> None:
    """An optimizer's state dict comes back the same and loads."""
    model = nn.Linear(3, 2)
    optimizer = optimizers(list(model.parameters()))[index]

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(4, 3)).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    state = optimizer.state_dict()
    back = through(state)
    assert same(back, state)
    optimizer.load_state_dict(back)
    assert same(optimizer.state_dict(), state)


def test_schedulers_round_trip() -> None:
    """Learning rate schedulers' state dicts come back the same, Counters and infinities included."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    schedulers = [
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 2, 5]),
        torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer),
        torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10),
        torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3),
    ]
    for scheduler in schedulers:
        state = scheduler.state_dict()
        assert same(through(state), state), type(scheduler)
