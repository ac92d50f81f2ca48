"""Both clients against the real server."""

import asyncio

import numpy as np
import pytest

from tests.serve.conftest import POPULAR, Server
from tradewind.client import AsyncClient, BadRequest, Client, Options

PATIENT = Options(deadline_ms=30_000)


def test_recommend(recommend_server: Server) -> None:
    """Items come best first, at most k, none of them seen, from the model's version, under the caller's id."""
    with Client(recommend_server.url, PATIENT) as client:
        assert client.ready()
        found = client.recommend(["i1", "i2"], k=5, user={"age": 0.5}, request_id="mine")
        with_times = client.recommend([{"item": "i1", "timestamp": 1}, {"item": "i2", "timestamp": 2}], k=5)
        popular = client.recommend([])
    assert (found.model, found.request_id) == ("recommender@1", "mine")
    assert len(found.items) == 5
    assert not {item.item for item in found.items} & {"i1", "i2"}
    scores = [item.score for item in found.items]
    assert scores == sorted(scores, reverse=True)
    assert [item.item for item in with_times.items] == [item.item for item in found.items]
    assert [item.item for item in popular.items][:3] == [f"i{n}" for n in POPULAR]


def test_infer_arrays_and_lists(generic_server: Server) -> None:
    """Arrays keep their dtype, lists take the model's, and outputs are those that were asked for."""
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    with Client(generic_server.url, PATIENT) as client:
        found = client.infer("affine", {"x": x, "ids": np.array([4, 5])}, request_id="r1")
        np.testing.assert_array_equal(found["y"], 2 * x + 1)
        np.testing.assert_array_equal(found["next"], [5, 6])
        assert (found.model, found.version, found.request_id) == ("affine", "1", "r1")
        listed = client.infer("affine", {"x": x.tolist(), "ids": [4, 5]}, outputs=["next"], version="1")
        assert list(listed.outputs) == ["next"]
        assert listed["next"].dtype == np.int64
        assert client.counts.calls == client.counts.sent - client.counts.hedges == 3  # one for the metadata


def test_a_wrong_request_names_what_is_wrong(generic_server: Server) -> None:
    """The server's own words reach the caller, with the status."""
    with Client(generic_server.url, PATIENT) as client:
        with pytest.raises(BadRequest, match="datatype is FP32") as caught:
            client.infer("affine", {"x": np.ones((1, 4)), "ids": np.array([1])})
        assert caught.value.status == 400
        with pytest.raises(BadRequest, match="unknown model 'nope'"):
            client.infer("nope", {"x": [1.0]})


def test_many_calls_at_once_on_one_client(generic_server: Server) -> None:
    """Concurrent calls each get their own answer, and connections are reused afterwards."""

    async def main() -> None:
        async with AsyncClient(generic_server.url, PATIENT) as client:
            for _ in range(3):
                calls = [client.infer("total", {"x": np.full(n, 1.0, np.float32)}) for n in range(1, 30)]
                sums = [float(next(iter(found.outputs.values()))) for found in await asyncio.gather(*calls)]
                assert sums == [float(n) for n in range(1, 30)]
            assert len(client._sender._pools[0]._idle) <= 29 + client.counts.hedges

    asyncio.run(main())
