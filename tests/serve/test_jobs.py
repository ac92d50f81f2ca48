"""The queue, and how requests become one batch and come apart again."""

import asyncio

import pytest

from tradewind.serve import wire
from tradewind.serve.jobs import Job, Prepared, Tensor, collate, misfit, split


def job(rows: int = 1, deadline_s: float = 1.0, fill: int = 0, length: int | None = None) -> Job:
    """A request of `rows` rows; `length` elements in its jagged input."""
    jagged = rows if length is None else length
    tensors = {
        "x": Tensor("UINT8", (rows, 2), bytes([fill]) * rows * 2),
        "values": Tensor("UINT8", (jagged,), bytes([fill]) * jagged),
    }
    return Job(Prepared(tensors, rows, "key"), deadline_s, 0.0)


def in_loop(scenario) -> None:
    """Jobs belong to a running loop."""

    async def main():
        scenario()

    asyncio.run(main())


def test_a_batch_comes_apart_as_it_was_put_together():
    """Each request gets the rows that it sent, whatever the length of its jagged inputs."""

    def scenario():
        batch = [job(1, fill=1, length=5), job(3, fill=2, length=0), job(2, fill=3)]
        call, buffers = collate("p", batch)
        assert [(t.name, t.shape) for t in call.tensors] == [("x", (6, 2)), ("values", (7,))]
        joined = b"".join(buffers)
        reply = wire.Reply(tensors=(wire.TensorSpec("y", "UINT8", (6, 2)),))
        results = split(batch, reply, joined[:12])
        assert [r["y"].shape for r in results] == [(1, 2), (3, 2), (2, 2)]
        assert [set(r["y"].data) for r in results] == [{1}, {2}, {3}]

    in_loop(scenario)


def test_outputs_that_do_not_fit_the_batch_are_noticed():
    """Nobody is given another's rows, whatever a program's signature promised."""

    def scenario():
        batch = [job(1), job(2)]
        fits, fewer = wire.TensorSpec("y", "UINT8", (3, 2)), wire.TensorSpec("z", "UINT8", (1, 2))
        assert misfit(batch, wire.Reply(tensors=(fits,))) is None
        assert "'z' has shape [1, 2] for a batch of 3 rows" in misfit(
            batch, wire.Reply(tensors=(fits, fewer))
        )
        assert misfit(batch[:1], wire.Reply(tensors=(fewer,))) is None

    in_loop(scenario)


def test_a_request_alone_keeps_its_own_shape():
    """A program without a batch dimension gets and gives what it was exported with."""

    def scenario():
        alone = Job(Prepared({"x": Tensor("UINT8", (), b"7")}, 1, "key"), 1.0, 0.0)
        call, _ = collate("p", [alone])
        assert call.tensors[0].shape == ()
        reply = wire.Reply(tensors=(wire.TensorSpec("y", "UINT8", ()),))
        assert split([alone], reply, b"8")[0]["y"] == Tensor("UINT8", (), memoryview(b"8"))

    in_loop(scenario)


def test_a_request_whose_client_left_takes_no_error():
    """Failing a cancelled request is not an error of its own."""

    def scenario():
        left, waiting = job(), job()
        left.future.cancel()
        for one in (left, waiting):
            one.fail(ValueError("late"))
        assert left.future.cancelled()
        with pytest.raises(ValueError, match="late"):
            waiting.future.result()

    in_loop(scenario)
