"""Programs of a package from modules: with any number of requests and candidates, one of each included."""

from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config

MOST = 1 << 20
"""Requests, candidates or tokens that one run may hold."""


def export_dynamic(
    module: torch.nn.Module, example: tuple[torch.Tensor, ...], shapes: Any
) -> ExportedProgram:
    """Export a module for dynamic sizes; `shapes` as `torch.export.export` takes them as `dynamic_shapes`."""
    # Otherwise torch reasons separately about sizes 0 and 1, and refuses a batch of one.
    with _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        return torch.export.export(module.eval(), example, dynamic_shapes=shapes)


def export_ranker(ranker: torch.nn.Module, dimension: int, user_features: int) -> ExportedProgram:
    """Export what scores candidates, `rank` or `prerank` of a recommender.

    Its forward takes query FP32 [B, dimension], candidates INT64 [B, K], their retrieval scores FP32 [B, K] and
    FP32 [B, user_features], and returns scores FP32 [B, K].
    """
    example = (
        torch.zeros(3, dimension), torch.ones(3, 5, dtype=torch.int64), torch.rand(3, 5), torch.zeros(3, user_features)
    )  # fmt: skip
    requests, count = Dim("requests", min=1, max=MOST), Dim("candidates", min=1, max=MOST)
    shapes = ({0: requests}, {0: requests, 1: count}, {0: requests, 1: count}, {0: requests})
    return export_dynamic(ranker, example, shapes)
