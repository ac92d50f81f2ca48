"""From a trained model to a package: `torch.export` programs for retrieval and ranking, and the item index."""

import dataclasses
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from recipes.recommender.features import tags
from recipes.recommender.jagged import Jagged, next_times, single_layout
from recipes.recommender.models.base import SequenceModel
from recipes.recommender.models.popularity import popular
from recipes.recommender.rank import Ranker, user_side
from recipes.recommender.split import Split
from tradewind.models.export import MOST, export_dynamic, export_ranker

RETRIEVE_K = 100


class Encoder(nn.Module):
    """What is served: histories in, one query each out. Token t's next event is t + 1; the newest one's is `now`."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, values: Tensor, offsets: Tensor, timestamps: Tensor, ratings: Tensor, now: Tensor
    ) -> Tensor:
        """values, timestamps, ratings [T]; offsets [B + 1]; now [B] -> queries [B, D]."""
        batch = Jagged(
            values=values,
            offsets=offsets,
            timestamps=timestamps,
            ratings=ratings,
            next_times=next_times(timestamps, offsets, now),
            layout=single_layout(offsets, values, self.model.settings.max_history),
        )
        query, _ = self.model(batch)
        return query[batch.last]


def export_encoder(model: SequenceModel) -> ExportedProgram:
    """`encode`, with any number of tokens and sequences, one of each included."""
    lengths = torch.tensor([2, 4, 1])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    total = int(offsets[-1])
    times = torch.arange(total) * 60
    example = (
        torch.ones(total, dtype=torch.int64),
        offsets,
        times,
        torch.zeros(total),
        times[offsets[1:] - 1] + 60,
    )
    tokens, sequences = Dim("tokens", min=1, max=MOST), Dim("sequences", min=1, max=MOST)
    shapes = ({0: tokens}, {0: sequences + 1}, {0: tokens}, {0: tokens}, {0: sequences})
    return export_dynamic(Encoder(model), example, shapes)


def write(
    folder: pathlib.Path,
    model: SequenceModel,
    ranker: Ranker,
    split: Split,
    *,
    name: str,
    metrics: Mapping[str, float],
    evaluation: Mapping[str, np.ndarray],
    lineage: Mapping[str, Any],
) -> pathlib.Path:
    """Write the package into `folder`, replacing what an earlier run left there."""
    from tradewind.models import write_package
    from tradewind.retrieve.attributes import Attributes
    from tradewind.retrieve.stored import stored

    settings, log = model.settings, split.log
    names, _ = user_side(split)
    with torch.no_grad():
        table = model.scoring_table()
    attributes = stored(Attributes(tags(log.item_features)))
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    write_package(
        temporary,
        name=name,
        task="recommend",
        programs={
            "encode": export_encoder(model),
            "rank": export_ranker(ranker, table.shape[1], len(names)),
        },
        tensors={
            "items": {"embedding": table, "features": torch.from_numpy(log.item_features.table)},
            "attributes": attributes.tensors,
        },
        vocabularies={"item": log.item_ids, **attributes.vocabularies},
        metrics=metrics,
        lineage=lineage,
        config={
            "max_history": settings.max_history,
            "retrieve_k": RETRIEVE_K,
            "dimension": table.shape[1],
            "user_features": names,
            "popular": popular(split, RETRIEVE_K).tolist(),
            "settings": dataclasses.asdict(settings),
        },
        evaluation={key: torch.from_numpy(values) for key, values in evaluation.items()},
    )
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return folder
