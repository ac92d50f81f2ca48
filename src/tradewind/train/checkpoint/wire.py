"""Images over a connection: what two hosts say to each other, and the bytes, verified before they count.

A message is its length (4 bytes, big-endian) and a JSON object. An image follows one that has its `size`,
and ends with its XXH3 checksum (128 bits).
"""

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import xxhash

from tradewind.errors import IntegrityError
from tradewind.train.checkpoint import image
from tradewind.train.checkpoint.pace import UNHURRIED, Pace
from tradewind.train.checkpoint.slot import map_fresh

PATIENCE_S = 30.0
"""How long the other end may keep silent."""
_LENGTH = struct.Struct(">I")
_LONGEST = 1 << 16
_BLOCK = 4 << 20


def connect(address: str, made: Callable[[socket.socket], None] = lambda connection: None) -> socket.socket:
    """A connection to `host:port`; `made` gets the socket before it waits, so that another thread can end that."""
    family, where = _resolve(address)
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE_S)
    made(connection)
    try:
        connection.connect(where)
    except OSError:
        connection.close()
        raise
    return connection


def listen(address: str) -> socket.socket:
    """A socket that listens at `host:port`."""
    family, where = _resolve(address)
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(where)
        server.listen()
    except OSError:
        server.close()
        raise
    return server


def _resolve(address: str) -> tuple[int, Any]:
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    return found[0][0], found[0][4]


def say(connection: socket.socket, **message: Any) -> None:
    """Send a message."""
    body = json.dumps(message).encode()
    connection.sendall(_LENGTH.pack(len(body)) + body)


def hear(connection: socket.socket) -> dict[str, Any]:
    """Receive a message. Raises ConnectionError when there is none, ValueError when it is nonsense."""
    (length,) = _LENGTH.unpack(_exactly(connection, bytearray(_LENGTH.size)))
    if length > _LONGEST:
        raise ValueError(f"a message of {length} bytes")
    message = json.loads(bytes(_exactly(connection, bytearray(length))))
    if not isinstance(message, dict):
        raise ValueError("a message that is no object")
    return message


def _exactly(connection: socket.socket, buffer: "bytearray | memoryview") -> "bytearray | memoryview":
    view = memoryview(buffer)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise ConnectionError("the connection was closed")
        view = view[count:]
    return buffer


def size_of(header: image.Header) -> int:
    """Bytes of an image up to the end of its last file."""
    return max(at + size for _, at, size in header.files)


def send(connection: socket.socket, header: image.Header, view: memoryview, pace: Pace = UNHURRIED) -> None:
    """Send an image that is not written to meanwhile, its seal apart."""
    digest = xxhash.xxh3_128()
    for block in _blocks(header, view):
        began = time.monotonic()
        digest.update(block)
        connection.sendall(block)
        pace.rest(time.monotonic() - began)
    connection.sendall(digest.digest())


def _blocks(header: image.Header, view: memoryview) -> Iterator[memoryview]:
    # The seal comes while others read: what is sent of it must be what was hashed.
    first = min(at for _, at, _ in header.files)
    yield memoryview(bytes(view[:first]))
    end = size_of(header)
    yield from (view[at : min(end, at + _BLOCK)] for at in range(first, end, _BLOCK))


def receive(
    connection: socket.socket, size: int, path: Path, begin: Callable[[], None] = lambda: None
) -> image.Header:
    """Receive an image into a file, which appears once it is whole; its header.

    Calls `begin` when there is room for it. Raises a NoRoomError when there is no room for it, and an IntegrityError when it is not what was sent.
    """
    fresh = path.with_suffix(".new")
    memory = map_fresh(fresh, size)
    try:
        begin()
        view = memoryview(memory)
        digest = xxhash.xxh3_128()
        for at in range(0, size, _BLOCK):
            digest.update(_exactly(connection, view[at : at + _BLOCK]))
        if bytes(_exactly(connection, bytearray(digest.digest_size))) != digest.digest():
            raise IntegrityError(f"an image for {path} is not as it was sent")
        header = image.read_header(view)
        if header is None or size_of(header) != size:
            raise IntegrityError(f"what was sent for {path} is no image")
        fresh.rename(path)
    finally:
        fresh.unlink(missing_ok=True)
    return header
