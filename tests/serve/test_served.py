"""A generic program's requests, checked against its signature."""

import numpy as np
import pytest

from tradewind.serve.errors import RequestError
from tradewind.serve.protocols.values import Value
from tradewind.serve.served import ProgramModel
from tradewind.serve.wire import Port, Program

X = Port(name="x", dtype="FP32", shape=(-1, 4), range=((1, 8), (4, 4)), symbols=("b", None))
IDS = Port(name="ids", dtype="INT64", shape=(-1,), range=((1, None),), symbols=("b",))


def model(max_rows: int = 8) -> ProgramModel:
    return ProgramModel("m", "m", Program(inputs=(X, IDS), outputs=(X,), max_rows=max_rows))


def inputs(rows: int = 2, ids: int | None = None, width: int = 4, dtype: str = "FP32") -> dict[str, Value]:
    count = rows if ids is None else ids
    return {
        "ids": Value("INT64", (count,), np.arange(count).tobytes()),
        "x": Value(dtype, (rows, width), np.ones((rows, width), np.float32).tobytes()),
    }


def test_a_request_becomes_tensors_in_the_programs_order():
    """Rows are counted, and requests of one shape per row share a key."""
    prepared = model().prepare(inputs(2), {})
    assert list(prepared.tensors) == ["x", "ids"]
    assert prepared.rows == 2
    assert prepared.key == model().prepare(inputs(3), {}).key


def test_requests_to_a_program_that_cannot_batch_never_share_a_batch():
    """Each has a key of its own."""
    single = model(max_rows=1)
    assert single.prepare(inputs(), {}).key != single.prepare(inputs(), {}).key


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (inputs() | {"z": inputs()["ids"]}, "unexpected input 'z'; the inputs are x, ids"),
        ({"x": inputs()["x"]}, "input 'ids' is missing"),
        (inputs(dtype="FP64"), "datatype is FP32, not FP64"),
        (inputs(width=3), r"shape \[2, 3\] does not fit \[-1, 4\]"),
        (inputs() | {"ids": Value("INT64", (2, 1), b"")}, "does not fit"),
        (inputs(9), "dimension 0 must be 1 to 8"),
        (inputs(2, ids=3), "dimension 0 must be 2 as elsewhere"),
    ],
)
def test_what_does_not_fit_the_signature_is_refused_by_name(given, why):
    """Each is a 400 that names the input and what would fit."""
    with pytest.raises(RequestError, match=why) as caught:
        model().prepare(given, {})
    assert caught.value.status == 400


def test_more_rows_than_a_batch_are_refused():
    """A request is never cut in two."""
    with pytest.raises(RequestError, match="5 rows; this model takes 1 to 4"):
        model(max_rows=4).prepare(inputs(5), {})
