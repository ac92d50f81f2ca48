"""When a query is asked: how long after the newest known event, and in which part of the log's time.

Both are about the event to come, as HSTU's time bias is: what is being watched changes over the
months, and the next choice on the same page differs from the first one of a new visit.
"""

import torch
from torch import Tensor, nn

from recipes.recommender.jagged import Jagged
from recipes.recommender.models.base import Settings

TIME_BUCKETS = 64


def time_bucket(seconds: Tensor) -> Tensor:
    """Logarithmic buckets, two an octave: bucket 0 is "the same second"."""
    return (torch.log2(seconds.clamp(min=0).float() + 1.0) * 2.0).long().clamp(max=TIME_BUCKETS - 1)


class When(nn.Module):
    """Embeddings of the gap before the next event and of the calendar part it falls in."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.parts, (self.start_s, stop_s) = settings.calendar, settings.calendar_span_s
        self.part_s = max(1, -(-(stop_s - self.start_s + 1) // max(1, self.parts)))
        self.gap = nn.Embedding(TIME_BUCKETS, settings.dimension) if settings.gap else None
        self.calendar = nn.Embedding(self.parts, settings.dimension) if self.parts else None
        for table in (self.gap, self.calendar):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)

    def forward(self, x: Tensor, batch: Jagged) -> Tensor:
        """Tokens [T, D] with what is known of when each one's next event happens."""
        if self.gap is not None:
            x = x + self.gap(time_bucket(batch.next_times - batch.timestamps))
        if self.calendar is not None:
            x = x + self.calendar(self.part(batch.next_times))
        return x

    def part(self, times: Tensor) -> Tensor:
        """Part of the calendar; a time after the training log's is in the last one, the newest known."""
        return ((times - self.start_s) // self.part_s).clamp(0, self.parts - 1)
