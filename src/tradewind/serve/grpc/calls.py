"""What answers each call: requests carry the call's message, answers that of its response."""

from functools import partial
from typing import Any

import msgspec
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

import tradewind
from tradewind.serve.errors import RequestError
from tradewind.serve.forms import prepare
from tradewind.serve.grpc import fields
from tradewind.serve.grpc.messages import REQUESTS, RESPONSES, path
from tradewind.serve.grpc.tensors import inference_of, response_of
from tradewind.serve.handlers import Handlers
from tradewind.serve.http import Request, Response
from tradewind.serve.jobs import Result
from tradewind.serve.protocols import about, v2
from tradewind.serve.replica import Replica
from tradewind.serve.routes import Route, Routes, Work
from tradewind.serve.served import ServedModel

PROTOBUF = "application/grpc+proto"


class Calls:
    """The calls of the version that a replica serves now, by their paths."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._serving = replica.serving
        self._handlers = Handlers(replica)

    def routes(self) -> Routes:
        """Return every unary call; a stream's requests are answered as so many of `ModelInfer`."""
        handlers = {
            "ServerLive": ("health", self.live),
            "ServerReady": ("health", self.ready),
            "ModelReady": ("health", self.model_ready),
            "ServerMetadata": ("metadata", self.server_metadata),
            "ModelMetadata": ("metadata", self.model_metadata),
            "ModelConfig": ("metadata", self.model_config),
            "ModelStatistics": ("metadata", self.statistics),
            "RepositoryIndex": ("metadata", self.index),
        }
        routes = {path(call): Route(name, "POST", handle) for call, (name, handle) in handlers.items()}
        routes[path("ModelInfer")] = Route("infer", "POST", self.infer, self.no_time)
        return Routes(routes, self._serving.models, self._serving.version)

    def live(self, request: Request) -> Response:
        return _response("ServerLive", {"live": True})

    def ready(self, request: Request) -> Response:
        return _response("ServerReady", {"ready": self._replica.ready})

    def model_ready(self, request: Request) -> Response:
        self._named("ModelReady", request)
        return _response("ModelReady", {"ready": self._replica.ready})

    def server_metadata(self, request: Request) -> Response:
        metadata = v2.ServerMetadata(name="tradewind", version=tradewind.__version__)
        return _response("ServerMetadata", msgspec.to_builtins(metadata))

    def model_metadata(self, request: Request) -> Response:
        model = self._named("ModelMetadata", request)
        return _response("ModelMetadata", msgspec.to_builtins(v2.metadata(model, self._serving.version)))

    def model_config(self, request: Request) -> Response:
        model = self._named("ModelConfig", request)
        return _response(
            "ModelConfig",
            {"config": msgspec.to_builtins(about.config(model, self._serving.execution_of(model)))},
        )

    def statistics(self, request: Request) -> Response:
        message = _parse("ModelStatistics", request.body)
        models = (self._model(message.name, message.version),) if message.name else None
        found = about.Statistics(self._replica.statistics(models))
        return _response("ModelStatistics", msgspec.to_builtins(found))

    def index(self, request: Request) -> Response:
        message = _parse("RepositoryIndex", request.body)
        found = [m for m in self._replica.index() if self._replica.ready or not message.ready]
        return _response("RepositoryIndex", {"models": msgspec.to_builtins(found)})

    def infer(self, request: Request) -> Work:
        """Run a model on the tensors of a request."""
        fields.check(request.body)
        message = _parse("ModelInfer", request.body)
        model = self._model(message.model_name, message.model_version)
        inference = inference_of(message)
        typed = any(tensor.HasField("contents") for tensor in message.inputs)
        job = self._handlers.submit(model, inference.request, prepare(model, inference), request)
        return Work(self._serving, model.program, job, partial(self._inferred, model, inference, not typed))

    def no_time(self, request: Request) -> bool:
        """Whether to refuse an inference unparsed; unless its deadline or class are in it."""
        model = self._serving.models.get(fields.model_name(request.body))
        stated = b"timeout" in request.body or b"priority" in request.body
        return model is not None and not stated and self._handlers.no_time(model, request)

    def _inferred(self, model: ServedModel, inference: v2.Inference, raw: bool, result: Result) -> Response:
        values = model.finish(result.tensors, inference.request.parameters)
        answer = response_of(model.name, self._serving.version, inference, values, raw)
        return Response(200, answer.SerializeToString(), PROTOBUF, self._handlers.level(model, result))

    def _named(self, call: str, request: Request) -> ServedModel:
        message = _parse(call, request.body)
        return self._model(message.name, message.version)

    def _model(self, name: str, version: str) -> ServedModel:
        models, served = self._serving.models, self._serving.version
        if name not in models:
            raise RequestError(404, f"unknown model {name[:80]!r}; this server has {', '.join(models)}")
        if version not in ("", served):
            raise RequestError(404, f"unknown version {version[:80]!r} of {name!r}; it is {served}")
        return models[name]


def _parse(call: str, body: bytes) -> Any:
    try:
        return REQUESTS[call].FromString(body)
    except DecodeError:
        raise RequestError(400, f"not a {REQUESTS[call].DESCRIPTOR.name} message") from None


def _response(call: str, content: dict[str, Any]) -> Response:
    message = ParseDict(content, RESPONSES[call](), ignore_unknown_fields=True)
    return Response(200, message.SerializeToString(), PROTOBUF)
