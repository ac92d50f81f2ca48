"""The short form of `bench/fuzz.py`: a few hundred seeded inputs of every kind against a real server process."""

import asyncio

import pytest

from bench.fuzz import serving
from bench.malformed.drive import Tally, over_grpc, over_http


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with serving(tmp_path_factory.mktemp("fuzz")) as server:
        yield server


def test_no_input_over_http_is_answered_with_a_bug(server):
    """No 5xx, no whole request without an answer, no connection left open; and it serves on."""
    tally, files = Tally(), server.num_files()
    asyncio.run(over_http(server.host, server.port, 7, 400, tally))
    assert tally.inputs == 400
    assert tally.bugs == []
    assert len({kind for kind, _ in tally.statuses}) >= 15
    assert {"200", "400", "404", "405", "413", "415", "431"} <= {status for _, status in tally.statuses}
    assert server.ready()
    while server.num_files() > files:
        pass


def test_no_call_over_grpc_is_answered_with_a_bug(server):
    """No INTERNAL, no UNKNOWN; and it serves on."""
    tally = Tally()
    asyncio.run(over_grpc(server.grpc, 7, 200, tally))
    assert tally.bugs == []
    codes = {status for _, status in tally.statuses}
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"} <= codes
    assert server.ready()
