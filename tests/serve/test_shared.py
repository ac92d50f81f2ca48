"""Memory that two processes share: what one puts there the other reads, and too much is left alone."""

import asyncio
import os
import pathlib
import signal
import sys

import numpy as np
import pytest

from tradewind.serve import shared, wire
from tradewind.serve.arrays import to_arrays
from tradewind.serve.execution import Pool, WorkerOptions
from tradewind.serve.shared import SHARED_BYTES, Shared

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is none elsewhere")

ECHO = """
import numpy as np

class Echo:
    inputs = {"x": "FP32[-1, -1]"}
    outputs = {"y": "FP32[-1, 2]"}

    def __init__(self):
        self.kept = []

    def __call__(self, x):
        if x.any():
            self.kept.append(x)
        first = self.kept[0].sum() if self.kept else 0
        return np.stack([x.sum(1), np.full(len(x), first, np.float32)], 1)

    @staticmethod
    def sample(rows):
        return {"x": np.zeros((rows, 1), np.float32)}
"""


def pair() -> tuple[Shared, Shared]:
    """Two ends of the same memory."""
    fd = shared.make()
    assert fd is not None
    try:
        return Shared(fd), Shared(fd)
    finally:
        os.close(fd)


def test_what_is_put_is_there_for_the_other():
    """As many buffers as there are, of any kind, one behind the other; arrays lie there and are not copied."""
    ours, theirs = pair()
    x, y = np.arange(6, dtype=np.float32), np.arange(3, dtype=np.int64)
    first = ours.put([x.tobytes(), memoryview(y), bytearray(b"\1\0")])
    specs = [wire.TensorSpec("x", "FP32", (2, 3)), wire.TensorSpec("y", "INT64", (3,))]
    found = to_arrays([*specs, wire.TensorSpec("z", "BOOL", (2,))], theirs.at(first))
    assert found["x"].tolist() == x.reshape(2, 3).tolist()
    assert found["y"].tolist() == [0, 1, 2]
    assert found["z"].tolist() == [True, False]
    second = ours.put([np.full(6, 7, np.float32).tobytes()])
    assert second != first
    assert found["x"].tolist() == x.reshape(2, 3).tolist(), "the batch before is not touched"
    assert ours.put([np.full(6, 8, np.float32).tobytes()]) == first
    assert found["x"].tolist() == [[8.0] * 3] * 2


def test_too_much_is_not_put():
    """And what was there is still there."""
    ours, theirs = pair()
    first = ours.put([b"before"])
    assert ours.put([bytes(SHARED_BYTES), b"!"]) is None
    second = ours.put([b"\1" * SHARED_BYTES])
    assert theirs.at(first)[:7] == b"before\0"
    assert theirs.at(second)[:] == b"\1" * SHARED_BYTES


@pytest.fixture
def echo(tmp_path: pathlib.Path) -> WorkerOptions:
    """A user's class that keeps the first array that it was called with."""
    path = tmp_path / "echo.py"
    path.write_text(ECHO)
    return WorkerOptions(f"{path}:Echo", 4, 0, repeats=0)


def test_batches_of_any_size_arrive(echo):
    """Small ones in shared memory and large ones over the socket, in any order; a class may keep what it was given."""

    sizes = (3, SHARED_BYTES // 4 + 5, 2, SHARED_BYTES // 4)

    async def scenario() -> list[list[float]]:
        pool = Pool(echo, 1, 0, lambda: None)
        try:
            await pool.start()
            worker, found = pool.take(), []
            assert worker is not None
            for value, columns in enumerate(sizes, start=1):
                spec = wire.TensorSpec("x", "FP32", (1, columns))
                data = np.full(columns, value, np.float32).tobytes()
                reply, body = await worker.call(wire.Call("Echo", (spec,)), [data])
                assert reply.error is None
                found.append(np.frombuffer(body, np.float32).tolist())
            return found
        finally:
            await pool.close()

    sums = [value * columns for value, columns in enumerate(sizes, start=1)]
    assert asyncio.run(scenario()) == [[float(total), 3.0] for total in sums]


def test_a_batch_waits_at_its_worker_while_another_runs(echo):
    """Both are there at once, and each gets its own answer; one that may not wait so long is not run."""

    async def scenario() -> None:
        pool = Pool(echo, 1, 0, lambda: None)
        try:
            await pool.start()
            worker = pool.take()
            assert worker is not None
            spec = wire.TensorSpec("x", "FP32", (1, 1000))
            full = [np.full(1000, value, np.float32).tobytes() for value in (1, 2, 3, 4)]
            os.kill(worker.process.pid, signal.SIGSTOP)
            calls = [
                worker.call(wire.Call("Echo", (spec,)), [data], within_s)
                for data, within_s in zip(full[:2], (None, 600.0), strict=True)
            ]
            os.kill(worker.process.pid, signal.SIGCONT)
            answers = await asyncio.gather(*calls)
            assert [np.frombuffer(body, np.float32)[0] for _, body in answers] == [1000.0, 2000.0]
            assert all(reply.ended_s is not None and not reply.late for reply, _ in answers)
            late, body = await worker.call(wire.Call("Echo", (spec,)), [full[2]], -1.0)
            assert (late.late, late.tensors, body) == (True, (), b"")
            _, body = await worker.call(wire.Call("Echo", (spec,)), [full[3]])
            assert np.frombuffer(body, np.float32).tolist() == [4000.0, 1000.0]
        finally:
            await pool.close()

    asyncio.run(scenario())
