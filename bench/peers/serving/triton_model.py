"""Triton's Python backend serving one of the models; becomes `model.py` of a model repository."""

import json
import os
import sys
from typing import Any

sys.path[:0] = os.environ["BENCH_PATH"].split(":")

import numpy as np  # noqa: E402
import triton_python_backend_utils as triton  # noqa: E402

from bench.peers.serving import model  # noqa: E402


class TritonPythonModel:
    """One batch of requests, each of one row."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self._run = model.model(config["parameters"]["model"]["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        batch = np.concatenate([triton.get_input_tensor_by_name(r, "x").as_numpy() for r in requests])
        result = self._run(batch)
        return [
            triton.InferenceResponse([triton.Tensor("y", result[i : i + 1])]) for i in range(len(requests))
        ]
