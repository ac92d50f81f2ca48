"""The client for threads: the asyncio client in an event loop of its own."""

import asyncio
import importlib
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from tradewind.client.aio import AsyncClient
from tradewind.client.call import Inference, Recommendation
from tradewind.client.endpoints import Snapshot
from tradewind.client.sender import DEFAULTS, Counts, Options

T = TypeVar("T")


class Client:
    """AsyncClient for code without an event loop; any number of threads may share one.

    Its connections live in one background thread, which ends with `close`, so that a hedge can run while its
    caller waits. A process that forks makes its client afterwards.
    """

    def __init__(self, endpoints: str | Sequence[str], options: Options = DEFAULTS) -> None:
        self._client = AsyncClient(endpoints, options)
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tradewind-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection and end the thread; further calls raise RuntimeError."""
        if self._loop.is_closed():
            return
        self._wait(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def counts(self) -> Counts:
        """What was done so far: calls, requests sent, retries, hedges."""
        return self._client.counts

    @property
    def endpoints(self) -> list[Snapshot]:
        """Each endpoint: requests outstanding, and whether it is ejected."""
        return self._client.endpoints

    def recommend(
        self,
        history: Sequence[Any] | None = None,
        *,
        user_id: str | int | None = None,
        k: int | None = None,
        user: Mapping[str, float] | None = None,
        exclude_seen: bool = True,
        now: float | None = None,
        filter: object = None,
        deadline_ms: float | None = None,
        tenant: str | None = None,
        priority: str | None = None,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Recommendation:
        """Items for a user's history: ids oldest first, or mappings with item, timestamp and rating.

        With `user_id`, the server puts what it has stored of that user before it; it may be left out then.
        `filter` says what the items must be: a `tradewind.retrieve.Filter`, or mappings and lists like its JSON.
        """
        return self._wait(
            self._client.recommend(
                history, user_id=user_id, k=k, user=user, exclude_seen=exclude_seen, now=now, filter=filter,
                deadline_ms=deadline_ms, tenant=tenant, priority=priority, request_id=request_id, headers=headers,
            )
        )  # fmt: skip

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        version: str | None = None,
        outputs: Sequence[str] = (),
        parameters: Mapping[str, Any] | None = None,
        deadline_ms: float | None = None,
        tenant: str | None = None,
        priority: str | None = None,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Inference:
        """Run a model on arrays by input name, the first dimension being rows; all of its outputs, or those named.

        Lists are sent in the datatype of the model's metadata, which is fetched once.
        """
        return self._wait(
            self._client.infer(
                model, inputs, version=version, outputs=outputs, parameters=parameters,
                deadline_ms=deadline_ms, tenant=tenant, priority=priority, request_id=request_id,
                headers=headers,
            )
        )  # fmt: skip

    def ready(self, *, deadline_ms: float | None = None) -> bool:
        """Whether an endpoint says that it can answer; False also when none can be reached in time."""
        return self._wait(self._client.ready(deadline_ms=deadline_ms))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            work.close()
            raise RuntimeError("this client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # also on Ctrl-C: the call ends, and frees its slot in the server
            future.cancel()
            raise


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        factory = asyncio.new_event_loop
    return factory()
