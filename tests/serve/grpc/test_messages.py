"""Our messages are the protocol's: each field has the public name, number and type."""

import pathlib
import subprocess
import sys

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tritonclient.grpc import service_pb2

from tradewind.serve.grpc.messages import COMPILED, REQUESTS, RESPONSES


def differences(ours: Descriptor) -> list[str]:
    """Fields of ours, and of the messages in it, that the protocol does not have so."""
    theirs = service_pb2.DESCRIPTOR.pool.FindMessageTypeByName(ours.full_name)
    found = []
    for field in ours.fields:
        public = theirs.fields_by_name.get(field.name)
        if public is None or (public.number, public.type, public.is_repeated) != (
            field.number,
            field.type,
            field.is_repeated,
        ):
            found.append(field.full_name)
        elif field.message_type is not None:
            found += differences(field.message_type)
        elif field.enum_type is not None:
            values = public.enum_type.values_by_name
            found += [v.name for v in field.enum_type.values if values[v.name].number != v.number]
    return found


def test_every_field_is_the_protocols():
    """Compared with what NVIDIA's client was generated from."""
    for message in (*REQUESTS.values(), *RESPONSES.values()):
        assert differences(message.DESCRIPTOR) == []


def test_every_call_takes_and_gives_what_the_protocol_says():
    """By the names of the messages."""
    public = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for call in REQUESTS:
        assert public[call].input_type.full_name == REQUESTS[call].DESCRIPTOR.full_name
        assert public[call].output_type.full_name == RESPONSES[call].DESCRIPTOR.full_name


def test_the_compiled_file_is_of_the_proto_beside_it(tmp_path: pathlib.Path):
    """Whoever changes one has compiled it."""
    folder, fresh = COMPILED.parent, tmp_path / "fresh.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", f"--descriptor_set_out={fresh}"]
    subprocess.run([*command, "inference.proto"], cwd=folder, check=True)
    assert FileDescriptorSet.FromString(fresh.read_bytes()) == FileDescriptorSet.FromString(
        COMPILED.read_bytes()
    )
