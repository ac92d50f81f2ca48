"""HTTP/1.1: well-framed requests with any content, which share a connection, and broken framing, which ends one."""

import gzip
import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

MAX_BODY = 1 << 20
BOMB = 1 << 24
INFER = "/v2/models/affine/infer"
_BOMBS = {"gzip": gzip.compress(bytes(BOMB)), "deflate": zlib.compress(bytes(BOMB))}
_LENGTH = "inference-header-content-length"
Headers = dict[str, str]


class Case(NamedTuple):
    """One input: its bytes, and whether the connection can go on after its one answer."""

    kind: str
    data: bytes
    framed: bool = True
    method: str = "POST"


def case(rng: random.Random) -> Case:
    """Return one input."""
    return rng.choice(_MAKERS)(rng)


def valid(rng: random.Random) -> Case:
    return post("valid", json.dumps(_inference(rng)).encode())


def valid_binary(rng: random.Random) -> Case:
    rows = rng.randrange(1, 5)
    tensors = [
        {"name": "x", "shape": [rows, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16 * rows}},
        {"name": "ids", "shape": [rows], "datatype": "INT64", "parameters": {"binary_data_size": 8 * rows}},
    ]
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    body = head + struct.pack(f"<{4 * rows}f{rows}q", *range(5 * rows))
    return post("valid binary", body, {_LENGTH: str(len(head))})


def mutated(rng: random.Random) -> Case:
    return post("mutated", mutate(rng, json.dumps(_inference(rng)).encode()))


def mutated_binary(rng: random.Random) -> Case:
    made = valid_binary(rng).data
    head, _, body = made.partition(b"\r\n\r\n")
    stated = head.lower().partition(_LENGTH.encode() + b": ")[2].partition(b"\r\n")[0].decode()
    return post(
        "mutated binary", mutate(rng, body), {_LENGTH: rng.choice([stated, "0", "-1", "9" * 30, "x"])}
    )


def wrong_tensor(rng: random.Random) -> Case:
    changes = {
        "shape": rng.choice([[], [0], [-1, 4], [1 << 62, 4], [2**63 - 1] * 16, [1] * 17, [1, 5], "x", [1.5]]),
        "datatype": rng.choice(["FP16", "BF16", "BYTES", "INT8", "FP31", "", None, 7]),
        "data": rng.choice([[], None, "x", [[1], [2, 3]], [None], [1e308] * 4, [10**400], [True] * 4, {}]),
        "name": rng.choice(["", "z", "x" * 100_000, "\u0000", "ids"]),
        "parameters": rng.choice(
            [{"binary_data_size": 1 << 60}, {"shared_memory_region": "r"}, {"binary_data_size": True}, []]
        ),
    }
    body = _inference(rng)
    tensor = body["inputs"][0]
    for field in rng.sample(sorted(changes), rng.randrange(1, 3)):
        tensor[field] = changes[field]
    return post("wrong tensor", json.dumps(body).encode())


def wrong_parameters(rng: random.Random) -> Case:
    values = [-1, 0, 1, 1 << 64, 1e300, "soon", None, [], {}, True]
    names = ["timeout", "priority", "sequence_id", "binary_data_output", "classification", "k"]
    body = _inference(rng) | {"parameters": {rng.choice(names): rng.choice(values)}}
    body["id"] = rng.choice(["", "x" * 10_000, 7, None])
    return post("wrong parameters", json.dumps(body).encode())


def not_a_number(rng: random.Random) -> Case:
    token = rng.choice(["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "01", "+1", "0x1", "1."])
    body = f'{{"inputs":[{{"name":"x","shape":[1,1],"datatype":"FP32","data":[{token}]}}]}}'
    return post("not a number", body.encode())


def deep(rng: random.Random) -> Case:
    depth = rng.choice([100, 1000, 10_000, 100_000])
    opening = rng.choice([b"[", b'{"a":', b'{"inputs":[{"data":[', b'{"parameters":{"a":['])
    return post("deep", opening * (depth // len(opening)))


def not_text(rng: random.Random) -> Case:
    bad = rng.choice(
        [b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"\xf8\x88\x80\x80\x80", b"\\ud800", b"\x00"]
    )
    return post(
        "not text", b'{"inputs":[{"name":"' + bad + b'","shape":[1],"datatype":"BYTES","data":["a"]}]}'
    )


def compressed(rng: random.Random) -> Case:
    coding = rng.choice(sorted(_BOMBS))
    plain = json.dumps(_inference(rng)).encode()
    whole = gzip.compress(plain, 1) if coding == "gzip" else zlib.compress(plain, 1)
    body = rng.choice(
        [_BOMBS[coding], whole, whole[: len(whole) // 2], whole + b"x", mutate(rng, whole), plain]
    )
    return post(
        "compressed", body, {"content-encoding": rng.choice([coding, coding, coding, "br", "gzip, gzip"])}
    )


def headers(rng: random.Random) -> Case:
    odd = rng.choice(
        [
            {"x-deadline-ms": rng.choice(["", "soon", "-1", "nan", "inf", "1e-300", "1e300", "0x10"])},
            {"x-request-id": rng.choice(["a" * 10_000, "\x7f", "\xe9", " "])},
            {"accept-encoding": rng.choice(["gzip", "deflate;q=0", "," * 1000, "gzip;q=x"])},
            {"authorization": "Bearer " + "k" * rng.randrange(5000)},
            {"x-tenant": "t" * 5000, "x-priority": rng.choice(["high", "-1", "x" * 5000])},
            {f"x-{i}": "v" for i in range(rng.choice([50, 127, 200, 2000]))},
            {"x-large": "v" * rng.choice([1000, 60_000, 70_000])},
        ]
    )
    return post("headers", json.dumps(_inference(rng)).encode(), odd, framed=False)


def elsewhere(rng: random.Random) -> Case:
    """A path that is not there, that is not for this, or that is not supported."""
    method = rng.choice(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
    path = rng.choice(
        [
            "/", "/v2", "/metrics", "/openapi.json", "/v2/health/ready", "/v2/models/affine", "/v2/models/affine/config",
            "/v2/models/affine/stats", "/v2/models/stats", "/v2/repository/index", "/v2/systemsharedmemory/status",
            "/v2/models/affine/trace/setting", "/v2/logging", "/v2/repository/models/affine/load", "/v1/recommend",
            "/%00%ff", "/..%2f..%2fetc/passwd", "/" + "a" * rng.randrange(3000), "//", "/v2/models//infer", INFER,
        ]
    )  # fmt: skip
    return request("elsewhere", method, path, b"" if method in ("GET", "HEAD") else b"{}")


def truncated(rng: random.Random) -> Case:
    whole = post("truncated", json.dumps(_inference(rng)).encode()).data
    return Case("truncated", whole[: rng.randrange(1, len(whole))], framed=False)


def oversized(rng: random.Random) -> Case:
    if rng.random() < 0.5:
        head = f"POST {INFER} HTTP/1.1\r\nhost: h\r\ncontent-length: {rng.choice([MAX_BODY + 1, 1 << 50])}\r\n\r\n"
        return Case("oversized", head.encode() + b"x" * 1000, framed=False)
    chunk = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    head = f"POST {INFER} HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    return Case("oversized", head.encode() + chunk * 18, framed=False)


def framing(rng: random.Random) -> Case:
    line = rng.choice(
        [
            "content-length: -1", "content-length: 5\r\ncontent-length: 6", "content-length: 1 2",
            "content-length: 5\r\ntransfer-encoding: chunked", "transfer-encoding: gzip, chunked, chunked",
            "transfer-encoding: xchunked", "no colon here", ": empty name", "x: \x00", "content-length: 99999999999999999999",
            "expect: 100-continue\r\ncontent-length: 3", "upgrade: h2c\r\nconnection: upgrade", " folded: value",
        ]
    )  # fmt: skip
    tail = rng.choice(
        [b"", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b"FFFFFFFFFFFFFFFFF\r\n", b"0\r\n" + b"t: v\r\n" * 200]
    )
    return Case(
        "framing",
        f"POST {INFER} HTTP/1.1\r\nhost: h\r\n{line}\r\n\r\n".encode("latin-1") + tail,
        framed=False,
    )


def garbage(rng: random.Random) -> Case:
    before = valid(rng).data if rng.random() < 0.5 else b""
    return Case("garbage", before + rng.randbytes(rng.randrange(1, 2000)), framed=False)


def pipelined(rng: random.Random) -> Case:
    many = 1500 if rng.random() < 0.01 else rng.choice([2, 20])
    one = rng.choice([b"GET /v2 HTTP/1.1\r\nhost: h\r\n\r\n", valid(rng).data])
    return Case("pipelined", one * many + b"GET / HTTP/9.9\r\n\r\n", framed=False)


def post(kind: str, body: bytes, headers: Headers | None = None, framed: bool = True) -> Case:
    return request(kind, "POST", INFER, body, headers, framed)


def request(
    kind: str, method: str, path: str, body: bytes, headers: Headers | None = None, framed: bool = True
) -> Case:
    """A well-framed request."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = f"{method} {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
    return Case(kind, head.encode("latin-1") + body, framed, method)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Return `data` with a few bytes changed, cut, doubled or put in."""
    made = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(made) + 1)
        how = rng.randrange(4)
        if how == 0 and at < len(made):
            made[at] = rng.randrange(256)
        elif how == 1:
            made[at:at] = rng.randbytes(rng.randrange(1, 5))
        elif how == 2:
            del made[at : at + rng.randrange(1, 20)]
        else:
            made[at:at] = made[max(0, at - 20) : at]
    return bytes(made)


def _inference(rng: random.Random) -> dict:  # type: ignore[type-arg]
    rows = rng.randrange(1, 5)
    x = {"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": [rng.random() for _ in range(4 * rows)]}
    ids = {"name": "ids", "shape": [rows], "datatype": "INT64", "data": list(range(rows))}
    return {"inputs": [x, ids]}


_MAKERS: list[Callable[[random.Random], Case]] = [
    *(
        valid,
        valid_binary,
        mutated,
        mutated_binary,
        wrong_tensor,
        wrong_tensor,
        wrong_parameters,
        not_a_number,
    ),
    *(deep, not_text, compressed, headers, elsewhere, elsewhere, mutated, wrong_parameters),
    *(truncated, oversized, framing, garbage, pipelined),
]
