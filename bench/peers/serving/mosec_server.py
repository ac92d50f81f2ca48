"""Mosec serving the model BENCH_MODEL, waiting BENCH_WAIT_MS for company; mosec's own flags are its arguments."""

import os

import numpy as np
from mosec import Server, Worker

from bench.peers.serving import model

NAME, WAIT_MS = os.environ["BENCH_MODEL"], int(os.environ["BENCH_WAIT_MS"])


class Model(Worker):
    """Raw float32 in, raw float32 out."""

    def __init__(self) -> None:
        super().__init__()
        self._run = model.model(NAME)

    def deserialize(self, data: bytes):
        return np.frombuffer(data, np.float32).reshape(model.SHAPES[NAME].inputs)

    def serialize(self, data: model.Array) -> bytes:
        return data.tobytes()

    def forward(self, data: list[model.Array]) -> list[model.Array]:
        return list(self._run(np.stack(data)))


if __name__ == "__main__":
    server = Server()
    server.append_worker(Model, num=1, max_batch_size=model.MAX_BATCH, max_wait_time=WAIT_MS)
    server.run()
