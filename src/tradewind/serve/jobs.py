"""Requests in the queue, and how several of them become one batch and come apart again."""

import asyncio
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from tradewind.serve import wire
from tradewind.serve.caller import ANYBODY, Caller


class Tensor(NamedTuple):
    """One request's part of a batch tensor: joined with others along its first dimension."""

    dtype: str
    shape: tuple[int, ...]
    data: wire.Buffer


class Prepared(NamedTuple):
    """A request ready to queue. Only requests with the same key share a batch."""

    tensors: Mapping[str, Tensor]
    rows: int
    key: Hashable


class Result(NamedTuple):
    """One request's rows of the outputs, where its time went, and the quality level it was made at."""

    tensors: dict[str, Tensor]
    queue_s: float
    compute_s: float
    batch_rows: int
    level: str = ""


class Job:
    """One request in the queue; `future` gets its Result, or a RequestError."""

    __slots__ = (
        "caller",
        "cost_s",
        "deadline_s",
        "due_s",
        "floor",
        "future",
        "instant",
        "key",
        "last_start_s",
        "must_run",
        "queued_s",
        "rank",
        "rows",
        "tensors",
        "tries",
    )

    def __init__(self, prepared: Prepared, deadline_s: float, now: float, caller: Caller = ANYBODY) -> None:
        self.tensors, self.rows, self.key = prepared
        self.caller = caller
        self.rank = caller.priority
        """Its class: 0 is the most important."""
        self.deadline_s = deadline_s
        self.due_s = deadline_s
        """When its batch must have ended, for its answer to be written by the deadline."""
        self.last_start_s = deadline_s
        """When its batch must have begun, at the cheapest level that it accepts."""
        self.floor = 0
        """The cheapest level that a worker may answer it at, by number."""
        self.instant = False
        """Whether it accepts an answer that needs no worker."""
        self.cost_s = 0.0
        """Its share of the model's time, as expected when it came."""
        self.queued_s = now
        self.must_run = False
        self.tries = 0
        self.future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    @property
    def prepared(self) -> Prepared:
        """The request as it was queued."""
        return Prepared(self.tensors, self.rows, self.key)

    def run_alone(self) -> None:
        """Share no batch from now on."""
        self.key = object()

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless the client has left."""
        if not self.future.done():
            self.future.set_exception(error)


def rows_of(jobs: Iterable[Job]) -> int:
    """Return how many rows they have together."""
    return sum([job.rows for job in jobs])


def collate(program: str, batch: Sequence[Job]) -> tuple[wire.Call, list[wire.Buffer]]:
    """Return the call that runs a batch: each input joined along its first dimension."""
    specs: list[wire.TensorSpec] = []
    buffers: list[wire.Buffer] = []
    for name, first in batch[0].tensors.items():
        parts = [job.tensors[name] for job in batch]
        shape = (sum([p.shape[0] for p in parts]), *first.shape[1:]) if len(batch) > 1 else first.shape
        specs.append(wire.TensorSpec(name, first.dtype, shape))
        buffers.extend(p.data for p in parts)
    return wire.Call(program, tuple(specs)), buffers


def misfit(batch: Sequence[Job], reply: wire.Reply) -> str | None:
    """Say which output has not as many rows as the batch, so that nobody gets another's; None when all do."""
    rows = rows_of(batch)
    for spec in reply.tensors if len(batch) > 1 else ():
        if spec.shape[:1] != (rows,):
            return f"output {spec.name!r} has shape {list(spec.shape)} for a batch of {rows} rows"
    return None


def split(batch: Sequence[Job], reply: wire.Reply, body: bytes) -> list[dict[str, Tensor]]:
    """Cut each output along its first dimension, as many rows as each request sent."""
    results: list[dict[str, Tensor]] = [{} for _ in batch]
    for spec, view in zip(reply.tensors, wire.views(reply.tensors, body), strict=True):
        if len(batch) == 1:
            results[0][spec.name] = Tensor(spec.dtype, spec.shape, view)
            continue
        per_row, start = spec.nbytes // spec.shape[0], 0
        for job, result in zip(batch, results, strict=True):
            end = start + job.rows * per_row
            result[spec.name] = Tensor(spec.dtype, (job.rows, *spec.shape[1:]), view[start:end])
            start = end
    return results
