"""Batches of sample indices, each sample exactly once an epoch, over any number of workers."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tradewind.errors import SpecError
from tradewind.train import distributed

Indices = npt.NDArray[np.int64]


def epoch_order(num_samples: int, seed: int, epoch: int) -> Indices:
    """The order of an epoch: a permutation that depends on `(seed, epoch)` and nothing else.

    Sorting raw bits rather than calling `permutation`: numpy promises that the bits stay the same
    in its later versions, and does not promise it of the permutation.
    """
    bits = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(num_samples)
    return np.argsort(bits, kind="stable").astype(np.int64, copy=False)


class Batches:
    """An endless or `epochs` long stream of batches that knows how far it has come.

    `batch_size` is global: each batch is cut over the workers, so that together they deliver it
    exactly. The cursor counts samples of the global order and is the same on every worker, so a
    run may resume with another number of workers or another batch size.

    Without `fetch` a batch is this worker's int64 indices; with it, what `fetch(indices)` returns.
    The last batch of an epoch is smaller unless `drop_last`; when it has fewer samples than there
    are workers, some of them get an empty one.
    """

    elastic = True
    """Its state is the same on every worker, so another number of workers may take it up."""

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        seed: int = 0,
        epochs: int | None = None,
        rank: int | None = None,
        world: int | None = None,
        drop_last: bool = False,
        shuffle: bool = True,
        fetch: Callable[[Indices], Any] | None = None,
    ) -> None:
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.epochs = epochs
        self.rank = distributed.rank() if rank is None else rank
        self.world = distributed.world_size() if world is None else world
        self.drop_last = drop_last
        self.shuffle = shuffle
        self._fetch = fetch
        self._epoch = 0
        self._position = 0
        self._order: tuple[int, Indices] | None = None
        self._check()

    def _check(self) -> None:
        if self.num_samples < 1 or self.batch_size < 1:
            raise SpecError(
                f"Batches: num_samples ({self.num_samples}) and batch_size ({self.batch_size}) "
                "must both be at least 1"
            )
        if self.seed < 0:
            raise SpecError(f"Batches: seed is {self.seed}; it must not be negative")
        if self.drop_last and self.batch_size > self.num_samples:
            raise SpecError(
                f"Batches: batch_size {self.batch_size} is above num_samples {self.num_samples}, "
                "so drop_last=True would drop everything"
            )
        if not 0 <= self.rank < self.world:
            raise SpecError(f"Batches: rank {self.rank} is not among {self.world} workers")

    @property
    def epoch(self) -> int:
        """Epochs delivered in full so far."""
        return self._epoch

    @property
    def steps_per_epoch(self) -> int:
        """Batches in a whole epoch."""
        whole, rest = divmod(self.num_samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __len__(self) -> int:
        """Batches in all epochs; a TypeError when they never end."""
        if self.epochs is None:
            raise TypeError("Batches without epochs has no length")
        return self.epochs * self.steps_per_epoch

    def __iter__(self) -> Iterator[Any]:
        while (indices := self._advance()) is not None:
            yield indices if self._fetch is None else self._fetch(indices)

    def _advance(self) -> Indices | None:
        """This worker's part of the next global batch, with the cursor moved past it."""
        # The cursor may come from a run with smaller batches, and have too few samples left for this one.
        if self.num_samples - self._position < (self.batch_size if self.drop_last else 1):
            self._epoch, self._position = self._epoch + 1, 0
        if self.epochs is not None and self._epoch >= self.epochs:
            return None
        start = self._position
        stop = min(start + self.batch_size, self.num_samples)
        part = self._order_of(self._epoch)[start:stop]
        self._position = stop
        least = self.batch_size if self.drop_last else 1
        if self.num_samples - stop < least:
            self._epoch, self._position = self._epoch + 1, 0
        low = self.rank * len(part) // self.world
        high = (self.rank + 1) * len(part) // self.world
        return part[low:high]

    def _order_of(self, epoch: int) -> Indices:
        if self._order is None or self._order[0] != epoch:
            order = epoch_order(self.num_samples, self.seed, epoch) if self.shuffle else None
            self._order = (epoch, np.arange(self.num_samples, dtype=np.int64) if order is None else order)
        return self._order[1]

    def state_dict(self) -> dict[str, Any]:
        """The cursor, and what the global order is made of."""
        return {
            "epoch": self._epoch,
            "position": self._position,
            "num_samples": self.num_samples,
            "seed": self.seed,
            "shuffle": self.shuffle,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a cursor; a SpecError when it belongs to another order."""
        for name in ("num_samples", "seed", "shuffle"):
            if state[name] != getattr(self, name):
                raise SpecError(
                    f"Batches: the checkpoint was made with {name}={state[name]} and this run has "
                    f"{name}={getattr(self, name)}, which is another order of samples; use the same "
                    "value, or another checkpoint folder to start afresh"
                )
        self._epoch, self._position = state["epoch"], state["position"]
