"""Requests as the tests vary them."""

from typing import Any

from tradewind.launch.kubernetes.code import Code, split
from tradewind.launch.kubernetes.context import Context
from tradewind.launch.kubernetes.request import Capabilities, Request, make_request
from tradewind.spec import Placement, RunSpec, to_dict

IMAGE = "registry.example/train@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

PLAIN = Capabilities()


def context(**fields: Any) -> Context:
    """A context with an image."""
    return Context(**({"placement": Placement(image=IMAGE)} | fields))


def code() -> Code:
    """One layer of a little something, named by its content as always."""
    parts = split(b"\0\0\0\0\0\0\0\2[]")
    return Code(digest="sha256:00", layers=(tuple(parts),), parts=parts, max_bytes=10)


def request(
    spec: RunSpec | None = None,
    *,
    on: Context | None = None,
    capabilities: Capabilities | None = PLAIN,
    **fields: Any,
) -> Request:
    """A run of two hosts, as asked of a cluster."""
    spec = spec or RunSpec(script="train.py", hosts=2, workers=2)
    given: dict[str, Any] = {"run": "0123456789ab", "name": "train", "code": code()} | fields
    return make_request(
        spec=spec, stored=to_dict(spec), context=on or context(), capabilities=capabilities, **given
    )
