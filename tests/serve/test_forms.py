"""Inferences that were read before are read again as they would have been."""

import json

import numpy as np
import pytest

from tradewind.serve.errors import RequestError
from tradewind.serve.forms import MAX_BYTES, MAX_FORMS, Forms
from tradewind.serve.served import ProgramModel
from tradewind.serve.wire import Port, Program

X = Port(name="x", dtype="FP32", shape=(-1, 2))
N = Port(name="n", dtype="INT64", shape=(-1,))
OUTPUTS = (Port(name="y", dtype="FP32", shape=(-1,)),)


def model(*inputs: Port, max_rows: int = 8) -> ProgramModel:
    return ProgramModel("m", "m", Program(inputs=inputs, outputs=OUTPUTS, max_rows=max_rows))


def body(*arrays: tuple[str, np.ndarray], id_: str = "", **more: object) -> tuple[bytes, str]:
    """An inference with these arrays as binary tensors, and the length of its JSON."""
    types = {"float32": "FP32", "int64": "INT64", "bool": "BOOL"}
    inputs = [
        {
            "name": name,
            "shape": array.shape,
            "datatype": types[str(array.dtype)],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in arrays
    ]
    head = json.dumps({"id": id_, "inputs": inputs, **more}).encode()
    return head + b"".join(array.tobytes() for _, array in arrays), str(len(head))


def arrays(seed: int, rows: int = 2) -> tuple[tuple[str, np.ndarray], ...]:
    """In another order than the model has them."""
    drawn = np.random.default_rng(seed)
    return ("n", drawn.integers(0, 9, rows)), ("x", drawn.random((rows, 2), np.float32))


def read(forms: Forms, of: ProgramModel, body: bytes, size: str):
    """Read a body that comes behind a head."""
    head = b"x" * 13
    return forms.read(of, head + body, len(head), size)


def values(prepared) -> dict[str, tuple]:
    return {name: (t.dtype, t.shape, bytes(t.data)) for name, t in prepared.tensors.items()}


def test_other_tensors_behind_the_same_json_are_read_as_for_the_first_time():
    """What is remembered is what the JSON says, not what follows it."""
    forms, of = Forms(), model(X, N)
    for seed in (1, 2, 1):
        asked, prepared = read(forms, of, *body(*arrays(seed), id_="r"))
        fresh = read(Forms(), of, *body(*arrays(seed), id_="r"))
        assert (asked, values(prepared)) == (fresh[0], values(fresh[1]))
        assert list(prepared.tensors) == ["x", "n"]
        assert (prepared.rows, prepared.key) == (2, ((2,), ()))
    assert len(forms._known) == 1


def test_requests_of_one_shape_share_a_batch_and_those_that_cannot_do_not():
    """Whether their JSON was known or not."""
    forms, alone = Forms(), model(X, N, max_rows=1)
    keys = [read(forms, model(X, N), *body(*arrays(seed), id_=str(seed // 2)))[1].key for seed in range(4)]
    assert len(set(keys)) == 1
    own = [read(forms, alone, *body(*arrays(seed), id_="alone"))[1].key for seed in range(3)]
    assert len(set(map(id, own))) == 3


@pytest.mark.parametrize("cut", [1, 8])
def test_a_known_json_before_too_few_or_too_many_bytes_is_refused(cut):
    """As the first time: naming which tensor they do not fit."""
    forms, (whole, size) = Forms(), body(*arrays(1))
    for _ in range(2):
        read(forms, model(X, N), whole, size)
        with pytest.raises(RequestError, match="'x': binary_data_size does not fit"):
            read(forms, model(X, N), whole[:-cut], size)
        with pytest.raises(RequestError, match=f"{cut} bytes follow"):
            read(forms, model(X, N), whole + bytes(cut), size)


def test_what_is_wrong_is_said_each_time():
    """Nothing is remembered of what is refused."""
    forms = Forms()
    for _ in range(2):
        with pytest.raises(RequestError, match="unknown output 'q'"):
            read(forms, model(X, N), *body(*arrays(1), outputs=[{"name": "q"}]))
        with pytest.raises(RequestError, match="1 to 8"):
            read(forms, model(X, N), *body(*arrays(1, rows=9)))
    assert not forms._known


def test_tensors_that_have_to_be_looked_at_are_looked_at_each_time():
    """A BOOL of 2, behind the JSON that stood before one of 1."""
    forms, of = Forms(), model(Port(name="b", dtype="BOOL", shape=(-1,)))
    good, size = body(("b", np.array([True, False])))
    for _ in range(2):
        assert read(forms, of, good, size)[1].rows == 2
        with pytest.raises(RequestError, match="BOOL"):
            read(forms, of, good[:-1] + b"\x02", size)


def test_models_that_are_told_apart_only_by_their_path_are_told_apart():
    """The same JSON may be right for one and wrong for another."""
    forms, one = Forms(), body(("x", np.ones((1, 2), np.float32)))
    read(forms, model(X), *one)
    other = ProgramModel("other", "other", Program(inputs=(X, N), outputs=OUTPUTS))
    with pytest.raises(RequestError, match="'n' is missing"):
        read(forms, other, *one)


def test_the_memory_for_it_is_bounded():
    """In how many there are, and in how long each may be."""
    forms, of = Forms(), model(X, N)
    for number in range(MAX_FORMS + 10):
        read(forms, of, *body(*arrays(1), id_=f"{number}"))
    assert len(forms._known) == MAX_FORMS
    long = body(*arrays(1), id_="i" * MAX_BYTES)
    read(forms, of, *long)
    assert all(len(head) <= MAX_BYTES for _, head in forms._known)
    assert read(forms, of, *long)[1].rows == 2
