"""A GPU as a backend of `serve.device`: pinned memory, one stream, CUDA graphs in one pool."""

import contextlib
from collections.abc import Callable, Iterator

import torch

from tradewind.serve.device import Graph, Tensors

WARM_UP_RUNS = 3
"""Before a capture: libraries choose their algorithms and take their workspaces in the first runs."""


class Cuda:
    """One GPU, as this process uses it. Without `pinned` copies go through pageable memory, to compare."""

    def __init__(self, name: str, *, graphs: bool = True, pinned: bool = True) -> None:
        self.name = name
        self.warming = graphs
        self._pinned = pinned
        self._device = torch.device(name)
        torch.cuda.set_device(self._device)  # so that nothing takes a context, and memory, on another one
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def host(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=self._pinned)

    def memory(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8, device=self._device)

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        with torch.cuda.stream(self._stream):
            try:
                yield
            finally:  # also where it failed: the next batch is written where this one may still be read
                self._done.record(self._stream)
                self._done.synchronize()

    def capture(self, run: Callable[[], Tensors]) -> Graph:
        aside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        aside.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # A capture that fails may leave its stream current, or in a bad state: neither is to be the batches' stream.
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP_RUNS):
                run()
            # One pool for all: they run one after the other, and what each gives is copied before the next.
            with torch.cuda.graph(graph, pool=self._pool, stream=aside):
                outputs = run()
        self._stream.wait_stream(aside)
        return Graph(graph.replay, outputs)
