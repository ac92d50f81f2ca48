"""State that was saved cut in one way, for parts that are cut in another."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from tradewind.errors import SpecError
from tradewind.train.checkpoint import Rows


def is_dtensor(value: Any) -> bool:
    """Whether a value is a tensor that is spread over a device mesh."""
    return isinstance(value, torch.Tensor) and hasattr(value, "placements")


def mesh_of(parts: Iterable[Any]) -> Any:
    """The device mesh of the parts' DTensors, as `fully_shard` makes them; None when there are none."""
    found: list[Any] = []
    for part in parts:
        for leaf in tree_leaves(part.state_dict()):
            if is_dtensor(leaf) and leaf.device_mesh not in found:
                found.append(leaf.device_mesh)
    if len(found) > 1 or any(mesh.ndim != 1 for mesh in found):
        raise SpecError(
            f"Loop: the state lies on {' and '.join(map(str, found))}; checkpoints can be made of one device "
            "mesh with one dimension"
        )
    return found[0] if found else None


def copied(state: Any) -> Any:
    """The same state with tensors of its own."""
    return tree_map(_copied_leaf, state)


def _copied_leaf(leaf: Any) -> Any:
    if isinstance(leaf, Rows):
        return Rows(leaf.local.clone(), leaf.start, leaf.total)
    return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf


def fitted(state: Any, part: Any) -> Any:
    """State for a part, in which tensors that were saved whole are cut where the part's are DTensors."""
    return _cut(state, _optimizer_like(part, state) if _is_optimizer(part) else part.state_dict())


def _is_optimizer(part: Any) -> bool:
    return isinstance(part, torch.optim.Optimizer)


def _optimizer_like(optimizer: torch.optim.Optimizer, state: Any) -> Any:
    """For every moment that has a parameter's shape, the parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        "state": {
            index: {
                key: parameters[index]
                for key, value in moments.items()
                if isinstance(value, torch.Tensor) and value.shape == parameters[index].shape
            }
            for index, moments in state["state"].items()
            if index < len(parameters)
        }
    }


def _cut(state: Any, like: Any) -> Any:
    if isinstance(state, dict) and isinstance(like, Mapping):
        return type(state)((key, _cut(value, like.get(key))) for key, value in state.items())
    if is_dtensor(like) and isinstance(state, torch.Tensor) and not is_dtensor(state):
        from torch.distributed.tensor import distribute_tensor

        # Every worker has the whole tensor, so nobody has to send any of it.
        return distribute_tensor(state, like.device_mesh, like.placements, src_data_rank=None)
    return state
