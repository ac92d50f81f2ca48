"""Frames: what goes in comes out, wherever the stream is cut, and a peer that goes is noticed."""

import socket
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.serve import wire

tensors = st.lists(
    st.tuples(st.sampled_from(sorted(wire.ITEM_BYTES)), st.lists(st.integers(0, 4), max_size=3)), max_size=4
)


def frame(shapes: list[tuple[str, list[int]]]) -> tuple[wire.Call, list[bytes]]:
    specs = tuple(wire.TensorSpec(f"t{i}", dtype, tuple(shape)) for i, (dtype, shape) in enumerate(shapes))
    return wire.Call("program", specs), [bytes([i]) * spec.nbytes for i, spec in enumerate(specs)]


@given(shapes=tensors)
def test_tensors_survive_a_frame(shapes):
    """Header and every tensor's bytes come back as they were packed."""
    call, buffers = frame(shapes)
    head, body, end = wire.cut(bytearray(b"".join(wire.pack(call, buffers))))
    assert msgspec.json.decode(head, type=wire.Call) == call
    assert [bytes(view) for view in wire.views(call.tensors, body)] == buffers
    assert end == wire.LENGTHS.size + len(head) + len(body)


@given(shapes=tensors, data=st.data())
def test_a_frame_is_cut_only_when_it_is_whole(shapes, data):
    """However the bytes arrive, nothing is cut before the last one, and what follows is left alone."""
    packed = b"".join(wire.pack(*frame(shapes)))
    size = data.draw(st.integers(0, len(packed) - 1))
    assert wire.cut(bytearray(packed[:size])) is None
    assert wire.cut(bytearray(packed + b"next"))[2] == len(packed)


def test_sockets_carry_frames_both_ways():
    """A frame larger than any socket buffer is sent and received whole; then the peer's end is None."""
    ours, theirs = socket.socketpair()
    call, buffers = frame([("FP32", [1 << 20])])
    with theirs:
        with ours:
            sender = threading.Thread(target=wire.send, args=(ours, call, buffers))
            sender.start()
            _, body = wire.receive(theirs)
            sender.join()
        assert body == buffers[0]
        assert wire.receive(theirs) is None


@pytest.mark.parametrize("size", [1, 11, 12, 20])
def test_a_peer_that_goes_in_the_middle_of_a_frame_is_gone(size):
    """Half a frame is no frame."""
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(b"".join(wire.pack(*frame([("INT64", [4])])))[:size])
        assert wire.receive(theirs) is None
