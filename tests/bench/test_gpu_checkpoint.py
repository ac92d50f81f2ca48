"""The benchmark of checkpoints from a GPU, as far as it goes without one."""

import os
import subprocess
import sys

import torch

from bench.gpu_checkpoint import compare
from bench.peers.checkpoints import drivers


def test_without_a_gpu_it_says_so() -> None:
    """One line, and no figures."""
    command = [sys.executable, "-m", "bench.gpu_checkpoint", "--quick"]
    env = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "gpu-checkpoint: not measured: torch sees no GPU here\n"


def test_everyone_saves_and_what_is_loaded_is_what_was_saved() -> None:
    """On the CPU, taken for the GPU: each contender has its stall and the rest, and ratios are ours to theirs."""
    makers = {name: drivers.DRIVERS[name] for name in ("tradewind", "dcp_thread")}
    found = compare(torch.device("cpu"), 4 << 20, repeats=1, makers=makers)
    assert found.keys() >= {"stall_s_copy", "background_s_dcp_thread", "load_memory_s", "load_speedup_dcp"}
    ours, theirs = found["stall_s_tradewind"].value, found["stall_s_dcp_thread"].value
    assert found["stall_ratio_dcp_thread"].value == ours / theirs
