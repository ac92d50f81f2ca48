"""LitServe serving one of the models: `python litserve_server.py MODEL PORT BATCH TIMEOUT_S FAST_QUEUE`."""

import base64
import sys
from typing import Any

import litserve
import numpy as np

from bench.peers.serving import model

NAME, PORT, BATCH, TIMEOUT_S, FAST = sys.argv[1:6]


class Model(litserve.LitAPI):
    """Raw float32 as base64 in JSON: the quickest of the bodies that it decodes."""

    def setup(self, device: str) -> None:
        self._run = model.model(NAME)

    def decode_request(self, request: dict[str, str]) -> model.Array:
        return np.frombuffer(base64.b64decode(request["x"]), np.float32).reshape(model.SHAPES[NAME].inputs)

    def batch(self, inputs: list[model.Array]) -> model.Array:
        return np.stack(inputs)

    def predict(self, x: model.Array) -> model.Array:
        return self._run(x)

    def unbatch(self, output: model.Array) -> list[model.Array]:
        return list(output)

    def encode_response(self, output: model.Array) -> dict[str, Any]:
        return {"y": base64.b64encode(output.tobytes()).decode()}


if __name__ == "__main__":
    api = Model(max_batch_size=int(BATCH), batch_timeout=float(TIMEOUT_S))
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=FAST == "1")
    server.run(host="127.0.0.1", port=int(PORT), generate_client_file=False, log_level="warning")
