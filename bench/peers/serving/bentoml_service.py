"""BentoML serving one of the models, named by BENCH_MODEL: `bentoml serve bench.peers.serving.bentoml_service:Model`."""

import base64
import os

import bentoml
import numpy as np

from bench.peers.serving import model

NAME = os.environ.get("BENCH_MODEL", "light")
LATENCY_MS = int(os.environ.get("BENCH_LATENCY_MS", "20"))


@bentoml.service(workers=1, traffic={"timeout": 10})
class Model:
    """Raw float32 as base64 in JSON."""

    def __init__(self) -> None:
        self._run = model.model(NAME)

    @bentoml.api(batchable=True, max_batch_size=model.MAX_BATCH, max_latency_ms=LATENCY_MS)
    def predict(self, x: list[str]) -> list[str]:
        rows = [np.frombuffer(base64.b64decode(text), np.float32) for text in x]
        batch = np.stack(rows).reshape(-1, *model.SHAPES[NAME].inputs)
        return [base64.b64encode(y.tobytes()).decode() for y in self._run(batch)]
