"""Tensor values: JSON and wire bytes in, the same tensor out, everything malformed refused by name."""

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tradewind.serve.errors import RequestError
from tradewind.serve.protocols.values import NUMPY, Value, from_binary, from_json, to_binary, to_json

numeric = st.sampled_from(sorted(NUMPY))
shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)


@given(data=st.data(), dtype=numeric, shape=shapes, nested=st.booleans())
def test_numbers_survive_json(data, dtype, shape, nested):
    """Flat or nested, every finite array of every type comes back as it was sent."""
    elements = {"allow_nan": False, "allow_infinity": False} if NUMPY[dtype].kind == "f" else {}
    array = data.draw(hnp.arrays(NUMPY[dtype], shape, elements=elements or None))
    listed = array.tolist() if nested else array.ravel().tolist()
    value = from_json("x", dtype, list(shape), listed)
    np.testing.assert_array_equal(value.array(), array)
    assert to_json(value) == array.ravel().tolist()


@given(items=st.lists(st.binary(max_size=9), min_size=1, max_size=9))
def test_byte_strings_survive_the_wire(items):
    """Any bytes, empty ones too, come back element for element."""
    wire = to_binary(Value("BYTES", (len(items),), items))
    assert from_binary("x", "BYTES", [len(items)], memoryview(wire)).data == items


@given(data=st.binary(max_size=40), shape=st.lists(st.integers(0, 4), max_size=3))
def test_any_bytes_as_byte_strings_are_read_or_refused(data, shape):
    """Lengths that lie never read past the end and never raise anything but RequestError."""
    with contextlib.suppress(RequestError):
        assert len(from_binary("x", "BYTES", shape, memoryview(data)).data) == math.prod(shape)


MALFORMED_JSON = [
    ("FP32", [2], [1.0], "fill"),
    ("FP32", [2], [[1.0], [2.0]], "fill"),
    ("FP32", [2, 2], [[1, 2], [3]], "ragged"),
    ("FP32", [1], ["1"], "FP32"),
    ("FP32", [1], [None], "FP32"),
    ("FP32", [1], [{}], "FP32"),
    ("FP32", [1], [True], "FP32"),
    ("FP32", [1], [1e39], "out of range"),
    ("FP16", [1], [70000.0], "out of range"),
    ("INT8", [1], [128], "out of range"),
    ("UINT8", [1], [-1], "out of range"),
    ("UINT64", [1], [-1], "out of range"),
    ("INT64", [1], [1 << 63], "out of range"),
    ("INT64", [1], [1 << 70], "INT64"),
    ("INT64", [1], [1.5], "INT64"),
    ("BOOL", [1], [1], "BOOL"),
    ("BF16", [1], [1.0], "binary"),
    ("BYTES", [2], ["a"], "2 strings"),
    ("BYTES", [1], [1], "1 strings"),
    ("BYTES", [2, 1], [["a"], "b"], "ragged"),
    ("BYTES", [1], ["\ud800"], "Unicode"),
    ("FP33", [1], [1.0], "unknown datatype"),
    ("FP32", [-1], [1.0], "shape"),
    ("FP32", [1] * 17, [1.0], "shape"),
    ("FP32", [1 << 62, 1 << 62], [1.0], "fill"),
    ("FP32", [1], 1.0, "list"),
]


@pytest.mark.parametrize(("dtype", "shape", "data", "why"), MALFORMED_JSON)
def test_malformed_json_is_refused_by_name(dtype, shape, data, why):
    """What does not hold the stated tensor is a 400 that names the input and the reason."""
    with pytest.raises(RequestError, match=why) as caught:
        from_json("x", dtype, shape, data)
    assert caught.value.status == 400
    assert "'x'" in str(caught.value)


MALFORMED_BINARY = [
    ("FP32", [2], bytes(4), "needs 8"),
    ("FP32", [1], bytes(8), "needs 4"),
    ("FP32", [1 << 62, 1 << 62], bytes(4), "needs"),
    ("BOOL", [1], b"\x02", "0 or 1"),
    ("BYTES", [1], b"\x05\x00\x00\x00ab", "past the end"),
    ("BYTES", [1], b"\xff\xff\xff\xff", "past the end"),
    ("BYTES", [1], b"\x01", "past the end"),
    ("BYTES", [1], b"", "1 BYTES"),
    ("BYTES", [0], b"\x00\x00\x00\x00", "0 BYTES"),
]


@pytest.mark.parametrize(("dtype", "shape", "data", "why"), MALFORMED_BINARY)
def test_malformed_binary_is_refused_by_name(dtype, shape, data, why):
    """Bytes that are too few, too many or not a number are a 400 that names the input and the reason."""
    with pytest.raises(RequestError, match=why) as caught:
        from_binary("x", dtype, shape, memoryview(data))
    assert caught.value.status == 400


def test_results_that_json_cannot_hold_become_null():
    """A model that answers NaN in JSON gives null, not a broken document."""
    import msgspec

    value = Value("FP32", (2,), np.array([np.nan, 1.0], np.float32).tobytes())
    assert msgspec.json.encode(to_json(value)) == b"[null,1.0]"


def test_bfloat16_is_written_as_numbers():
    """BF16 outputs asked for as JSON are the numbers they stand for."""
    assert to_json(Value("BF16", (2,), b"\x80\x3f\x20\xc0")) == [1.0, -2.5]
