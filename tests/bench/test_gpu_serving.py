"""The benchmark of serving on a GPU, as far as it goes without one."""

import functools
import os
import subprocess
import sys

from bench.gpu_serving import WAYS, compare
from tradewind.serve.device import Naive


def test_without_a_gpu_it_says_so():
    """One line, and no figures."""
    command = [sys.executable, "-m", "bench.gpu_serving", "--quick"]
    env = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("gpu-serving: not measured: device: cuda: ")
    assert done.stderr.count("\n") == 1


def test_all_ways_are_compared_at_all_sizes():
    """On the CPU, taken for the GPU: the package is written, every way gives its scores, each is timed."""
    backends = {way: functools.partial(Naive, warming=settings["graphs"]) for way, settings in WAYS.items()}
    found = compare(backends, [1, 3], repeats=2, calls=1, num_items=50)
    ways = {*WAYS, "cpu"}
    expected = {f"us_{way}_{rows}" for way in ways for rows in (1, 3)}
    expected |= {f"{way}_to_graphs_{rows}" for way in ways - {"graphs"} for rows in (1, 3)}
    assert found.keys() == expected | {"largest_difference"}
    assert found["us_cpu_3"].n == 2
    assert found["largest_difference"].value < 1e-5
