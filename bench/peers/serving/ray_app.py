"""Ray Serve serving one of the models: `python ray_app.py MODEL PORT BATCH WAIT_S FOLDER`. Ends with its parent's pipe."""

import sys

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from bench.peers.serving import model

NAME, PORT, BATCH, WAIT_S, FOLDER = sys.argv[1:6]


@serve.deployment(num_replicas=1, max_ongoing_requests=1024, ray_actor_options={"num_cpus": 1})
class Model:
    """Raw float32 in, raw float32 out."""

    def __init__(self, name: str) -> None:
        self._run = model.model(name)
        self._shape = model.SHAPES[name].inputs

    @serve.batch(max_batch_size=int(BATCH), batch_wait_timeout_s=float(WAIT_S))
    async def compute(self, bodies: list[bytes]) -> list[bytes]:
        batch = np.stack([np.frombuffer(body, np.float32).reshape(self._shape) for body in bodies])
        return [y.tobytes() for y in self._run(batch)]

    async def __call__(self, request: Request) -> Response:
        return Response(await self.compute(await request.body()))


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, _temp_dir=FOLDER, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(PORT)})
    serve.run(Model.bind(NAME))
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()
