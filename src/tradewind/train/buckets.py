"""Gradients summed in one order, before and after a restart.

DistributedDataParallel sorts its gradient buckets anew after a process's first backward. With three
workers or more the order in which a sum is taken follows from a gradient's place in its bucket, so
the first step after a restart would sum in another order than the same step of a run that went on:
both correct, and not the same bits.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def lay_out_buckets(model: Any) -> None:
    """Make DistributedDataParallel sort its buckets now, by a backward of zeros, so that no step sees it happen.

    Every worker calls it, before the first step; parameters, buffers, gradients and random state are
    as before. The order is the reverse of the parameters', in which a backward mostly finishes them.
    Does nothing to other models, nor to a static graph, which takes its first backward for the pattern.
    """
    if not isinstance(model, DistributedDataParallel) or model.static_graph:
        return
    inner = model.module
    kept = [(parameter, parameter.grad) for parameter in inner.parameters()]
    own = vars(inner).get("forward")  # A compiled module keeps its program there.
    inner.forward = lambda: zero_of(inner)
    try:
        with torch.enable_grad():
            model().backward()
    finally:
        del inner.forward
        if own is not None:
            inner.forward = own
        for parameter, grad in kept:
            parameter.grad = grad


def zero_of(module: nn.Module) -> torch.Tensor:
    """A zero whose backward reaches every trainable parameter, the last one first."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    total = torch.zeros((), device=parameters[0].device)
    for parameter in parameters:
        # Of no element, so that the gradient is zero and not even an infinite value leaves a trace.
        total = total + parameter.reshape(-1)[:0].sum().to(total)
    return total
