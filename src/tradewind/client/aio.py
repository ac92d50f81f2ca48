"""The client for asyncio."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tradewind import names
from tradewind.client import call as calls
from tradewind.client.call import Inference, Recommendation
from tradewind.client.endpoints import Snapshot
from tradewind.client.errors import ClientError
from tradewind.client.sender import DEFAULTS, Counts, Options, Sender
from tradewind.errors import SpecError

if TYPE_CHECKING:
    from tradewind.client.tensors import Port


class AsyncClient:
    """Calls one replica or several equal ones. Use it inside one event loop, as a context manager.

    `endpoints` are URLs such as `http://127.0.0.1:8080`. Calls raise DeadlineExceeded, Refused, BadRequest,
    Denied, ServerFailed, Unreachable or BrokenAnswer, all of them ClientError.
    """

    def __init__(self, endpoints: str | Sequence[str], options: Options = DEFAULTS) -> None:
        urls = [endpoints] if isinstance(endpoints, str) else list(endpoints)
        if not urls:
            raise SpecError("a client needs an endpoint, such as http://127.0.0.1:8080")
        self.options = options
        self._headers = _identity(options.api_key, options.tenant, options.priority)
        self._sender = Sender(urls, options, self._headers)
        self._ports: dict[tuple[str, str | None], dict[str, Port]] = {}

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._sender.close()

    @property
    def counts(self) -> Counts:
        """What was done so far: calls, requests sent, retries, hedges."""
        return self._sender.counts

    @property
    def endpoints(self) -> list[Snapshot]:
        """Each endpoint: requests outstanding, and whether it is ejected."""
        return self._sender.endpoints.snapshot()

    async def recommend(
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
        body = calls.recommend_body(history, k, user, exclude_seen, now, filter, user_id)
        merged = self._merged(tenant, priority, headers) | {"content-type": "application/json"}
        call = calls.make("POST", "/v1/recommend", [body], headers=merged, request_id=request_id)
        answer, endpoint = await self._sender.call(call, self._deadline_s(deadline_ms))
        return calls.read_recommendation(answer, endpoint, call.request_id)

    async def infer(
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
        deadline_s = self._deadline_s(deadline_ms)
        merged = self._merged(tenant, priority, headers)
        ports: dict[str, Port] = {}
        if any(isinstance(value, (list, tuple)) for value in inputs.values()):
            ports = await self._ports_of(model, version, deadline_s)
        call = calls.infer_call(model, version, inputs, ports, outputs, parameters, merged, request_id)
        answer, endpoint = await self._sender.call(call, deadline_s)
        return calls.read_inference(answer, endpoint, call.request_id)

    async def ready(self, *, deadline_ms: float | None = None) -> bool:
        """Whether an endpoint says that it can answer; False also when none can be reached in time."""
        call = calls.make("GET", "/v2/health/ready", headers=self._headers)
        try:
            await self._sender.call(call, self._deadline_s(deadline_ms))
        except ClientError:
            return False
        return True

    async def _ports_of(self, model: str, version: str | None, deadline_s: float) -> "dict[str, Port]":
        from tradewind.client.tensors import read_ports

        known = self._ports.get((model, version))
        if known is None:
            call = calls.make("GET", calls.model_path(model, version), headers=self._headers)
            answer, endpoint = await self._sender.call(call, deadline_s)
            known = read_ports(answer.body, endpoint)
            self._ports[model, version] = known
        return known

    def _merged(
        self, tenant: str | None, priority: str | None, headers: Mapping[str, str] | None
    ) -> dict[str, str]:
        return self._headers | _identity(None, tenant, priority) | dict(headers or {})

    def _deadline_s(self, deadline_ms: float | None) -> float:
        budget_ms = self.options.deadline_ms if deadline_ms is None else deadline_ms
        if not 0 < budget_ms < float("inf"):
            raise SpecError(f"deadline_ms is {budget_ms}; it must be a positive number of milliseconds")
        return time.monotonic() + budget_ms / 1e3


def _identity(api_key: str | None, tenant: str | None, priority: str | None) -> dict[str, str]:
    stated = {
        "authorization": api_key and f"Bearer {api_key}",
        names.HEADER_TENANT: tenant,
        names.HEADER_PRIORITY: priority,
    }
    return {name: value for name, value in stated.items() if value}
