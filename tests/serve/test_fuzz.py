"""The short form of `bench/fuzz.py`: a few hundred seeded inputs of every kind against a real server process."""

import asyncio
import os

import httpx2

from bench.malformed.drive import Tally, over_grpc, over_http
from tests.serve.conftest import Server


def num_files(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def is_ready(client: httpx2.Client, server: Server) -> bool:
    return client.get(server.url + "/v2/health/ready").status_code == 200


def test_no_input_over_http_is_answered_with_a_bug(client, generic_server):
    """No 5xx, no whole request without an answer, no connection left open; and it serves on."""
    assert is_ready(client, generic_server)  # on the connection that stays open
    tally, files = Tally(), num_files(generic_server)
    host, port = generic_server.address.split(":")
    asyncio.run(over_http(host, int(port), 7, 400, tally))
    assert tally.inputs == 400
    assert tally.bugs == []
    assert len({kind for kind, _ in tally.statuses}) >= 15
    assert {"200", "400", "404", "405", "413", "415", "431"} <= {status for _, status in tally.statuses}
    assert is_ready(client, generic_server)
    while num_files(generic_server) > files:
        pass


def test_no_call_over_grpc_is_answered_with_a_bug(client, generic_server):
    """No INTERNAL, no UNKNOWN; and it serves on."""
    tally = Tally()
    asyncio.run(over_grpc(generic_server.grpc, 7, 200, tally))
    assert tally.bugs == []
    codes = {status for _, status in tally.statuses}
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"} <= codes
    assert is_ready(client, generic_server)
