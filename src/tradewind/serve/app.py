"""The HTTP application of one replica."""

import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import tradewind
from tradewind import names
from tradewind.serve.body import read_body
from tradewind.serve.deadline import budget_s
from tradewind.serve.dispatch import Result
from tradewind.serve.errors import RequestError
from tradewind.serve.openapi import describe
from tradewind.serve.protocols import recommend, v2
from tradewind.serve.recommender import RecommendModel
from tradewind.serve.replica import Replica
from tradewind.serve.served import Prepared, ServedModel

Handler = Callable[[Request], Awaitable[Response]]
JSON = "application/json"


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return `content` as JSON."""
    return Response(msgspec.json.encode(content), status, headers, JSON)


def build_app(replica: Replica) -> Starlette:
    """Return the routes of `replica`, every error of which is JSON `{"error": ...}`."""
    api = Api(replica)
    model = "/v2/models/{model}"
    routes = [
        Route("/v2/health/live", api.live, methods=["GET"]),
        Route("/v2/health/ready", api.ready, methods=["GET"]),
        Route("/v2", api.server_metadata, methods=["GET"]),
        *(
            route
            for path in (model, model + "/versions/{version}")
            for route in (
                Route(path, api.model_metadata, methods=["GET"]),
                Route(path + "/ready", api.model_ready, methods=["GET"]),
                Route(path + "/infer", observed(replica, "infer", api.infer), methods=["POST"]),
            )
        ),
        Route("/metrics", api.metrics, methods=["GET"]),
        Route("/openapi.json", api.openapi, methods=["GET"]),
    ]
    if replica.recommender is not None:
        routes.append(Route("/v1/recommend", observed(replica, "recommend", api.recommend), methods=["POST"]))
    handlers: dict[Any, Any] = {RequestError: on_request_error, HTTPException: on_http_exception}
    return Starlette(routes=routes, exception_handlers=handlers)


def observed(replica: Replica, route: str, handler: Handler) -> Handler:
    """Wrap a handler so that its answer, good or bad, is counted, timed and logged once."""

    async def handle(request: Request) -> Response:
        start = time.perf_counter()
        request_id = request.headers.get(names.HEADER_REQUEST_ID, "")[:128] or uuid.uuid4().hex
        request.state.request_id = request_id
        try:
            response = await handler(request)
        except RequestError as error:
            response = await on_request_error(request, error)
        response.headers[names.HEADER_REQUEST_ID] = request_id
        replica.closing(response)
        replica.observe(route, request_id, response.status_code, time.perf_counter() - start)
        return response

    return handle


async def on_request_error(request: Request, error: RequestError) -> Response:
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    if error.status in (408, 413):
        headers["connection"] = "close"
    return json_response({"error": str(error)}, error.status, headers)


async def on_http_exception(request: Request, error: HTTPException) -> Response:
    return json_response({"error": error.detail}, error.status_code, dict(error.headers or {}))


class Api:
    """The handlers, one per route."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        document = describe(list(replica.models), replica.version, replica.recommender is not None)
        self._openapi = msgspec.json.encode(document)

    async def live(self, request: Request) -> Response:
        return json_response(v2.Live())

    async def ready(self, request: Request) -> Response:
        return self._readiness()

    async def server_metadata(self, request: Request) -> Response:
        return json_response(v2.ServerMetadata(name="tradewind", version=tradewind.__version__))

    async def model_metadata(self, request: Request) -> Response:
        return json_response(v2.metadata(self._model(request), self._replica.version))

    async def model_ready(self, request: Request) -> Response:
        self._model(request)
        return self._readiness()

    async def infer(self, request: Request) -> Response:
        model = self._model(request)
        body = await read_body(request, self._replica.max_bytes)
        inference = v2.parse(body, request.headers.get(v2.HEADER_LENGTH))
        v2.check_outputs(model, inference.request)
        prepared = model.prepare(inference.inputs, inference.request.parameters)
        result = await self._run(request, model, prepared, v2.timeout_us(inference.request))
        answer = v2.render(model, self._replica.version, inference, model.finish(result.tensors))
        if answer.header_length is None:
            return Response(answer.body, media_type=JSON)
        headers = {v2.HEADER_LENGTH: str(answer.header_length)}
        return Response(answer.body, headers=headers, media_type="application/octet-stream")

    async def recommend(self, request: Request) -> Response:
        model = self._replica.recommender
        assert isinstance(model, RecommendModel)
        body = await read_body(request, self._replica.max_bytes)
        prepared, k = recommend.parse(body, model.catalogue)
        result = await self._run(request, model, prepared, None)
        return json_response(recommend.render(self._replica.label, k, result.tensors, model.catalogue))

    async def metrics(self, request: Request) -> Response:
        return Response(self._replica.render_metrics(), media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, request: Request) -> Response:
        return Response(self._openapi, media_type=JSON)

    async def _run(
        self, request: Request, model: ServedModel, prepared: Prepared, timeout_us: int | None
    ) -> Result:
        budget = budget_s(
            request.headers.get(names.HEADER_DEADLINE), self._replica.spec.slo.latency_ms, timeout_us
        )
        return await self._replica.dispatcher.submit(
            model.program, prepared.tensors, rows=prepared.rows, key=prepared.key, budget_s=budget
        )

    def _model(self, request: Request) -> ServedModel:
        name, version = request.path_params["model"], request.path_params.get("version")
        model = self._replica.models.get(name)
        if model is None:
            raise RequestError(
                404, f"unknown model {name[:80]!r}; this server has {', '.join(self._replica.models)}"
            )
        if version not in (None, self._replica.version):
            raise RequestError(
                404, f"unknown version {version[:80]!r} of {name!r}; it is {self._replica.version}"
            )
        return model

    def _readiness(self) -> Response:
        if self._replica.ready:
            return json_response(v2.Ready())
        raise RequestError(503, self._replica.why_not_ready, 1.0)
