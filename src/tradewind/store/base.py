"""The store as its users see it."""

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from tradewind.store.records import Alias, Attempt, Event, Metric, ModelVersion, Run


class Store(Protocol):
    """Records shared by every process that opens the same URL; a method that returned is committed."""

    url: str

    def add_run(self, run: Run) -> Run:
        """Keep a new run; raises SpecError when its id is taken."""

    def update_run(self, id: str, **fields: Any) -> Run:
        """Set `fields` of a run and return what it is now; raises NotFoundError."""

    def run(self, ref: str) -> Run:
        """The run that `ref` means: its id, its name (the newest of that name), `last`, or the start
        of one id only; raises NotFoundError.
        """

    def runs(self, limit: int = 50) -> list[Run]:
        """The newest runs, newest first."""

    def add_attempt(self, attempt: Attempt) -> Attempt:
        """Keep a new attempt; raises NotFoundError without its run, SpecError when it is there already."""

    def update_attempt(self, run: str, index: int, **fields: Any) -> Attempt:
        """Set `fields` of an attempt and return what it is now; raises NotFoundError."""

    def attempts(self, run: str) -> list[Attempt]:
        """The attempts of a run by index."""

    def add_events(self, events: Iterable[Event]) -> None:
        """Append events in this order, all or none of them; in `data`, NaN and infinities become null."""

    def events(self, run: str, kind: str | None = None, after: int = 0) -> list[Event]:
        """Events of a run with `seq > after`, in order; a reader that passes on the last `seq` misses none."""

    def add_metrics(self, metrics: Iterable[Metric]) -> None:
        """Append metrics, all or none of them."""

    def metrics(self, run: str, name: str | None = None) -> list[Metric]:
        """Metrics of a run in the order they were added."""

    def add_model_version(
        self, name: str, digest: str, path: str | Callable[[int], str], manifest: Mapping[str, Any]
    ) -> ModelVersion:
        """Give the next version number of `name`, from 1, to no one else; a `path` that depends on the
        number is a function of it, called before the commit: it must not use the store, and what it
        raises undoes the version.
        """

    def model_version(self, ref: str) -> ModelVersion:
        """The version that `name@3`, `name@alias` or `name` (the newest) means; raises NotFoundError."""

    def model_versions(self, name: str | None = None) -> list[ModelVersion]:
        """All versions, by name and then number."""

    def set_alias(self, name: str, alias: str, version: int, why: str, actor: str = "") -> Alias:
        """Point `name@alias` at an existing version in one step and keep the move in its history."""

    def aliases(self, name: str | None = None) -> list[Alias]:
        """Where every alias points now."""

    def alias_history(self, name: str, alias: str) -> list[Alias]:
        """Every move of an alias, oldest first."""

    def close(self) -> None:
        """Give back the connections."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
