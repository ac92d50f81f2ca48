"""Time that the training thread waits for gradients to be exchanged.

On GPUs the exchange is awaited by the device and not by this thread, so there it is counted as
compute; on CPUs the count is exact.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_leaves

from tradewind.train.buckets import lay_out_buckets
from tradewind.train.ledger import COMMUNICATION, Ledger, process_ledger


@contextmanager
def communication() -> Iterator[None]:
    """Count the block as communication in this process's ledger, e.g. a hand-written all-reduce."""
    with process_ledger().within(COMMUNICATION):
        yield


def observe(model: Any, ledger: Ledger) -> None:
    """Count what DistributedDataParallel leaves exposed: the wait after backward's own work is done.

    Its buckets are laid out first: the exchange of every step is then the same before and after a restart.
    """
    lay_out_buckets(model)
    if isinstance(model, DistributedDataParallel):
        marks = _Marks(ledger)
        if model.find_unused_parameters or model.static_graph:
            model.register_forward_hook(marks.forward)
        else:
            # Each has a gradient in every backward, and one hook on one of them costs a step a tenth of one on the model.
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            trained[-1].register_hook(marks.backward)  # type: ignore[no-untyped-call]


class _Marks:
    """Marks around the wait at the end of every backward.

    The autograd engine runs the callbacks of a backward when its work is done, in the order they
    were queued. The first is queued here, before the last gradient is there; the reducer queues its wait for
    the exchanged gradients after that; and the second mark is queued by the first, so it comes last.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._engine: Any = torch.autograd.Variable._execution_engine
        self._queued = False

    def forward(self, module: Any, args: Any, output: Any) -> None:
        """A hook of the model: mark the backward of this forward."""
        self._queued = False
        for leaf in tree_leaves(output):
            if isinstance(leaf, torch.Tensor) and leaf.requires_grad:
                leaf.register_hook(self._first_backward)  # type: ignore[no-untyped-call]

    def _first_backward(self, gradient: torch.Tensor) -> None:
        if not self._queued:
            self._queued = True
            self.backward(gradient)

    def backward(self, gradient: torch.Tensor) -> None:
        """A hook of a tensor that has one gradient in a backward: it is under way."""
        self._engine.queue_callback(self._before_wait)

    def _before_wait(self) -> None:
        bucket = self._ledger.bucket
        self._ledger.switch(COMMUNICATION)
        self._engine.queue_callback(lambda: self._ledger.switch(bucket))
