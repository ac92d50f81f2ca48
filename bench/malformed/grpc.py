"""gRPC: messages of every kind, valid and not, as bytes."""

import random
import struct
from typing import Any, NamedTuple

from bench.malformed.http import mutate
from tradewind.serve.grpc.messages import REQUESTS

SERVICE = "/inference.GRPCInferenceService/"


class Call(NamedTuple):
    """One input: what is called, with which message, inside which time, compressed or not."""

    kind: str
    path: str
    message: bytes
    timeout_s: float = 30.0
    compressed: bool = False
    metadata: tuple[tuple[str, str], ...] = ()


def call(rng: random.Random) -> Call:
    """Return one input."""
    return rng.choice(_MAKERS)(rng)


def valid(rng: random.Random) -> Call:
    return Call(
        "grpc valid", SERVICE + "ModelInfer", _request(rng).SerializeToString(), compressed=rng.random() < 0.2
    )


def mutated(rng: random.Random) -> Call:
    return Call("grpc mutated", SERVICE + "ModelInfer", mutate(rng, _request(rng).SerializeToString()))


def garbage(rng: random.Random) -> Call:
    return Call("grpc garbage", SERVICE + rng.choice(_CALLS), rng.randbytes(rng.randrange(2000)))


def elsewhere(rng: random.Random) -> Call:
    path = rng.choice([*(SERVICE + name for name in _CALLS), SERVICE + "TraceSetting", "/a/b", "/", SERVICE])
    return Call("grpc elsewhere", path, b"")


def wrong(rng: random.Random) -> Call:
    request = _request(rng)
    x = request.inputs[0]
    kind = rng.randrange(7)
    if kind == 0:
        x.shape[:] = rng.choice([[], [-1, 4], [2**62, 4], [1] * 1000, [2**63 - 1] * 16])
    elif kind == 1:
        x.datatype = rng.choice(["", "FP16", "BYTES", "x" * 10_000, "UINT64"])
    elif kind == 2:
        x.contents.int_contents.extend([1, 2, 3])
    elif kind == 3:
        request.raw_input_contents.append(b"more")
    elif kind == 4:
        request.parameters[rng.choice(["timeout", "priority", "sequence_id"])].int64_param = rng.choice(
            [-1, 0, 2**63 - 1]
        )
    elif kind == 5:
        request.model_name = rng.choice(["", "nope", "x" * 10_000])
    else:
        x.name = rng.choice(["", "x" * 100_000, "ids"])
    return Call("grpc wrong", SERVICE + "ModelInfer", request.SerializeToString())


def large(rng: random.Random) -> Call:
    """Over the limit, or within it and large in memory."""
    bomb = bytes(rng.choice([1 << 21, 1 << 23]))
    message = rng.choice([bomb, b"\x2a\x00" * 500_000, b"\x0a\xff\xff\xff\xff\x0f", b"\x3a\x00" * 500_000])
    return Call("grpc large", SERVICE + "ModelInfer", message, compressed=rng.random() < 0.5)


def hasty(rng: random.Random) -> Call:
    return valid(rng)._replace(kind="grpc hasty", timeout_s=rng.choice([1e-4, 1e-3, 3e-3]))


def with_metadata(rng: random.Random) -> Call:
    odd = rng.choice(
        [
            (("x-deadline-ms", rng.choice(["soon", "-1", "nan", "1e-9"])),),
            tuple((f"x-{i}", "v") for i in range(200)),
            (("x-large", "v" * 30_000),),
            (("accept-encoding", "gzip"), ("content-encoding", "gzip")),
        ]
    )
    return valid(rng)._replace(kind="grpc metadata", metadata=odd)


def _request(rng: random.Random) -> Any:
    request = REQUESTS["ModelInfer"](model_name="affine", id="7")
    rows = rng.randrange(1, 5)
    x = request.inputs.add(name="x", datatype="FP32", shape=[rows, 4])
    ids = request.inputs.add(name="ids", datatype="INT64", shape=[rows])
    if rng.random() < 0.5:
        x.contents.fp32_contents.extend(range(4 * rows))
        ids.contents.int64_contents.extend(range(rows))
    else:
        request.raw_input_contents.append(struct.pack(f"<{4 * rows}f", *range(4 * rows)))
        request.raw_input_contents.append(struct.pack(f"<{rows}q", *range(rows)))
    return request


_CALLS = sorted(REQUESTS.keys() - {"ModelStreamInfer"})
_MAKERS = [valid, valid, mutated, mutated, wrong, wrong, garbage, elsewhere, large, hasty, with_metadata]
