"""Copy many tensors at the speed of memory."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

Bytes = npt.NDArray[np.uint8]

_LARGE = 256 << 10
"""From here on numpy's copy is used: the C library's memcpy goes past the cache, torch's goes through it."""
_BLOCK = 16 << 20
_WORTH_THREADS = 64 << 20


def threads_for(local_world: int) -> int:
    """Copying threads of one of so many workers of a host: four saturate what one worker may take."""
    return max(1, min(4, len(os.sched_getaffinity(0)) // local_world))


@cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Threads kept for copying, reading and hashing."""
    return ThreadPoolExecutor(threads, thread_name_prefix="tradewind-checkpoint")


os.register_at_fork(after_in_child=pool.cache_clear)  # threads do not come along


def copy_all(targets: Sequence[torch.Tensor], sources: Sequence[torch.Tensor], threads: int = 1) -> None:
    """Copy each source into its target in host memory; returns when the sources may be changed."""
    small: list[tuple[torch.Tensor, torch.Tensor]] = []
    large: list[tuple[torch.Tensor, torch.Tensor]] = []
    on_gpu: list[tuple[torch.Tensor, torch.Tensor]] = []
    for pair in zip(targets, sources, strict=True):
        (on_gpu if pair[1].is_cuda else large if _is_large(*pair) else small).append(pair)
    # Into pages that are locked (see `pages`) these are only queued: the GPU copies while this thread does.
    for target, source in on_gpu:
        target.copy_(source, non_blocking=True)
    if small:
        torch._foreach_copy_([target for target, _ in small], [source for _, source in small])
    blocks = [block for pair in large for block in _blocks(*pair)]
    if threads > 1 and sum(target.nbytes for target, _ in large) >= _WORTH_THREADS:
        for _ in pool(threads).map(_copy, blocks):
            pass
    else:
        for block in blocks:
            _copy(block)
    for device in gpus_of(sources):
        torch.cuda.current_stream(device).synchronize()


def gpus_of(tensors: Iterable[torch.Tensor]) -> set[torch.device]:
    """The GPUs on which some of the tensors lie."""
    return {tensor.device for tensor in tensors if tensor.is_cuda}


def _is_large(target: torch.Tensor, source: torch.Tensor) -> bool:
    return target.nbytes >= _LARGE and source.device.type == "cpu" and source.is_contiguous()


def raw(tensor: torch.Tensor) -> Bytes:
    """The bytes of a contiguous tensor in host memory."""
    found: Bytes = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return found


def _blocks(target: torch.Tensor, source: torch.Tensor) -> list[tuple[Bytes, Bytes]]:
    to, given = raw(target), raw(source)
    return [(to[at : at + _BLOCK], given[at : at + _BLOCK]) for at in range(0, len(to), _BLOCK)]


def _copy(block: tuple[Bytes, Bytes]) -> None:
    np.copyto(*block)
