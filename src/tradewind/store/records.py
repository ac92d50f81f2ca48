"""What the store keeps, one struct per kind; times are unix seconds."""

import os
from typing import Any, Literal

import msgspec

RunState = Literal["pending", "running", "succeeded", "failed", "requeued", "stopped"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen row of the store."""


class Run(Record, frozen=True, kw_only=True):
    """One training job as the user submitted it; `snapshot` is the digest of the code that ran."""

    id: str
    name: str
    state: RunState = "pending"
    created_s: float
    started_s: float | None = None
    ended_s: float | None = None
    spec: dict[str, Any] = {}
    snapshot: str | None = None
    dir: str = ""
    pid: int | None = None
    exit_code: int | None = None


class Attempt(Record, frozen=True, kw_only=True):
    """One scheduling of a run, counted from 0; `reason` says why it ended."""

    run: str
    index: int
    state: RunState = "pending"
    started_s: float | None = None
    ended_s: float | None = None
    exit_code: int | None = None
    reason: str | None = None


class Event(Record, frozen=True, kw_only=True):
    """Something that happened in a run; `seq` is given by the store and grows within the run."""

    run: str
    attempt: int
    rank: int | None = None
    t_s: float
    kind: str
    data: dict[str, Any] = {}
    seq: int = 0


class Metric(Record, frozen=True, kw_only=True):
    """One value that a rank logged at a step; NaN and infinities are kept."""

    run: str
    attempt: int
    rank: int
    step: int
    name: str
    value: float
    t_s: float


class ModelVersion(Record, frozen=True, kw_only=True):
    """An immutable packaged model, `name@version`."""

    name: str
    version: int
    digest: str
    path: str
    created_s: float
    manifest: dict[str, Any] = {}

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"


class Alias(Record, frozen=True, kw_only=True):
    """A movable name for a version: where it points since `t_s`, who moved it and why."""

    name: str
    alias: str
    version: int
    t_s: float
    why: str
    actor: str = ""


def new_id() -> str:
    """A fresh run id: 12 hexadecimal digits."""
    return os.urandom(6).hex()
