"""Frames between the front process and its model workers: a JSON header and raw tensor bytes, no pickle."""

import math
import socket
import struct
from collections.abc import Sequence

import msgspec

LENGTHS = struct.Struct("!IQ")
"""Bytes of the header, bytes of the body."""

Buffer = bytes | bytearray | memoryview

AUDIT = "audit!"
"""What a call names to have one search done again; no program can have this name."""

ITEM_BYTES = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "BF16": 2,
    "FP32": 4,
    "FP64": 8,
}
"""Bytes of one element, by Open Inference Protocol type name; BYTES has no fixed size."""


class TensorSpec(msgspec.Struct, frozen=True, array_like=True):
    """Name, type and shape of one tensor whose bytes follow in the body."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output of a program; -1 in `shape` is a dynamic dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    range: tuple[tuple[int, int | None], ...] = ()
    symbols: tuple[str | None, ...] = ()
    optional: bool = False


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What one callable of the worker takes and gives, and how long it takes per batch size."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    profile_s: dict[int, float] = {}
    max_rows: int = 1
    """Rows that one run may hold; 1 where the program cannot batch."""
    level: str = ""
    """The quality level that this program answers at, where there are several."""
    most: int | None = None
    """The largest k that it can give."""


class Attribute(msgspec.Struct, frozen=True, array_like=True):
    """An attribute of items: category, number, flag or tags; and what some of them have, None for none."""

    kind: str
    values: tuple[bool | int | float | str | tuple[str, ...] | None, ...]


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Median seconds of one batch size, eagerly and compiled."""

    rows: int
    eager_s: float
    compiled_s: float


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """How a program of the package runs: compiled, or eagerly and why."""

    compiled: bool = False
    why: str = ""
    difference: float | None = None
    """The largest from eager's outputs, as a share of their size; None where it was not compared."""
    timings: tuple[Timing, ...] = ()


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of its package once it is loaded and measured; vocabulary in the body."""

    name: str
    programs: dict[str, Program]
    task: str = "generic"
    digest: str = ""
    config: dict[str, object] = {}
    attributes: dict[str, Attribute] = {}
    """What a recommender's items may be filtered by, with the values of its popular items."""
    execution: dict[str, Execution] = {}
    """By program of the package; empty for a class of a file."""


class Call(msgspec.Struct, frozen=True):
    """Front to worker: run `program` on the tensors in the body, or from `start` on in the memory that both share."""

    program: str
    tensors: tuple[TensorSpec, ...]
    start: int | None = None
    begin_by_s: float | None = None
    """By the clock that all processes of a machine share (`time.monotonic`): later, it is not run."""


class Finding(msgspec.Struct, frozen=True):
    """The recall of one search that was done again exactly: of which plan, near which share of allowed items.

    `correction` says how the plan was changed, where it was.
    """

    plan: str
    allowed: float
    recall: float
    correction: str | None = None


class Nan(msgspec.Struct, frozen=True, array_like=True):
    """An input that holds NaN, and in which of its rows."""

    input: str
    rows: tuple[int, ...]


class Reply(msgspec.Struct, omit_defaults=True):
    """Worker to front: tensors, or the error that the program raised; once, at the start, what it has loaded."""

    tensors: tuple[TensorSpec, ...] = ()
    error: str | None = None
    nan: Nan | None = None
    """Nothing was run, for this."""
    late: bool = False
    """Nothing was run: it was too late to begin."""
    ready: Description | None = None
    due: int = 0
    """Searches that wait to be done again exactly, when there is time."""
    finding: Finding | None = None
    ended_s: float | None = None
    """When the run had ended, by that clock."""


def nbytes_of(buffer: Buffer) -> int:
    """Return how many bytes a buffer holds."""
    return len(buffer) if isinstance(buffer, (bytes, bytearray)) else buffer.nbytes


def pack(header: msgspec.Struct, buffers: Sequence[Buffer] = ()) -> list[Buffer]:
    """Return the pieces of a frame, in order."""
    head = msgspec.json.encode(header)
    size = sum([nbytes_of(buffer) for buffer in buffers])
    return [LENGTHS.pack(len(head), size) + head, *buffers]


def views(specs: Sequence[TensorSpec], body: Buffer) -> list[memoryview]:
    """Cut `body` into one view per tensor."""
    view, start, cut = memoryview(body), 0, []
    for spec in specs:
        cut.append(view[start : start + spec.nbytes])
        start += spec.nbytes
    return cut


def send(sock: socket.socket, header: msgspec.Struct, buffers: Sequence[Buffer] = ()) -> None:
    """Send one frame on a blocking socket."""
    sock.sendall(b"".join(pack(header, buffers)))


def receive(sock: socket.socket) -> tuple[bytearray, bytearray] | None:
    """Read one frame from a blocking socket; None when the peer has gone."""
    lengths = _read(sock, LENGTHS.size)
    if lengths is None:
        return None
    head_size, body_size = LENGTHS.unpack(lengths)
    head = _read(sock, head_size)
    body = _read(sock, body_size)
    return None if head is None or body is None else (head, body)


def _read(sock: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    view = memoryview(data)
    while view.nbytes:
        got = sock.recv_into(view)
        if got == 0:
            return None
        view = view[got:]
    return data


def cut(buffer: bytearray) -> tuple[bytes, bytes, int] | None:
    """Return header, body and length of the frame at the start of `buffer`; None while it is incomplete."""
    if len(buffer) < LENGTHS.size:
        return None
    head_size, body_size = LENGTHS.unpack_from(buffer)
    middle = LENGTHS.size + head_size
    end = middle + body_size
    if len(buffer) < end:
        return None
    view = memoryview(buffer)
    head, body = bytes(view[LENGTHS.size : middle]), bytes(view[middle:end])
    view.release()
    return head, body, end
