"""The protocol's messages as classes, from `inference.proto` compiled into `inference.binpb`.

They live in a descriptor pool of their own, so that a process may also import a client library that brings the same
messages under the same names.
"""

import pathlib
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

COMPILED = pathlib.Path(__file__).with_name("inference.binpb")
SERVICE = "inference.GRPCInferenceService"

_pool = DescriptorPool()
for _file in FileDescriptorSet.FromString(COMPILED.read_bytes()).file:
    _pool.Add(_file)

REQUESTS: dict[str, Any] = {}
"""The class of each call's request, by the call's name."""
RESPONSES: dict[str, Any] = {}
for _call in _pool.FindServiceByName(SERVICE).methods:
    REQUESTS[_call.name] = GetMessageClass(_call.input_type)
    RESPONSES[_call.name] = GetMessageClass(_call.output_type)


def path(call: str) -> str:
    """Return the path by which HTTP/2 asks for a call."""
    return f"/{SERVICE}/{call}"
