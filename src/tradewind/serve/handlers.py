"""What each route does."""

import re
import time
from collections.abc import Iterable
from functools import cached_property, partial

import msgspec
from prometheus_client.exposition import CONTENT_TYPE_LATEST

import tradewind
from tradewind import names
from tradewind.serve.admission import waited_too_long
from tradewind.serve.body import CONTENT_ENCODING, plain_body
from tradewind.serve.caller import Caller, Claim, Stated
from tradewind.serve.deadline import budget_s
from tradewind.serve.entry import Wish, enter, wait_until_s
from tradewind.serve.errors import RequestError
from tradewind.serve.features import Fetched, Outcome
from tradewind.serve.features.past import Past, past_of
from tradewind.serve.forms import Forms
from tradewind.serve.http import JSON, Request, Response, Turn, json_response
from tradewind.serve.http.message import Headers
from tradewind.serve.jobs import Job, Prepared, Result
from tradewind.serve.openapi import describe
from tradewind.serve.protocols import about, recommend, v2
from tradewind.serve.protocols.recommend import RecommendRequest
from tradewind.serve.recommender import RecommendModel
from tradewind.serve.replica import Replica
from tradewind.serve.routes import Fetch, Route, Routes, Work
from tradewind.serve.served import ServedModel

BINARY = "application/octet-stream"
DEADLINE, MIN_LEVEL = names.HEADER_DEADLINE.encode(), names.HEADER_MIN_LEVEL.encode()
STATED_TIMEOUT, STATED_PRIORITY = b'"timeout"', b'"priority"'
_VALUE = re.compile(rb'\s*:\s*"?([A-Za-z0-9]{1,64})')
HEADER_LENGTH = v2.HEADER_LENGTH.encode()


class Handlers:
    """What answers each route of the version that serves now. Each raises RequestError where it cannot answer."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._serving = replica.serving
        self._forms = Forms()

    def routes(self) -> Routes:
        """Return every route by its path."""
        serving = self._serving
        routes = {
            "/v2/health/live": Route("health", "GET", self.live),
            "/v2/health/ready": Route("health", "GET", self.ready),
            "/v2": Route("metadata", "GET", self.server_metadata),
            "/metrics": Route("metrics", "GET", self.metrics),
            "/openapi.json": Route("openapi", "GET", self.openapi),
            "/v2/models/stats": Route("metadata", "GET", self.statistics),
            "/v2/repository/index": Route("metadata", "POST", self.index),
        }
        for name, model in serving.models.items():
            for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{serving.version}"):
                routes[path] = Route("metadata", "GET", partial(self.model_metadata, model))
                routes[path + "/config"] = Route("metadata", "GET", partial(self.model_config, model))
                routes[path + "/stats"] = Route("metadata", "GET", partial(self.statistics, models=(model,)))
                routes[path + "/ready"] = Route("health", "GET", self.ready)
                routes[path + "/infer"] = Route(
                    "infer", "POST", partial(self.infer, model), partial(self.no_time, model), self.turn
                )
        if serving.recommender is not None:
            model = serving.recommender
            routes["/v1/recommend"] = Route(
                "recommend",
                "POST",
                partial(self.recommend, model),
                partial(self.no_time, model),
                self.turn,
                partial(self.recommend_fetched, model),
            )
        return Routes(routes, serving.models, serving.version)

    def live(self, request: Request) -> Response:
        return json_response(v2.Live())

    def ready(self, request: Request) -> Response:
        if not self._replica.ready:
            raise RequestError(503, self._replica.why_not_ready, 1.0)
        return json_response(v2.Ready())

    def server_metadata(self, request: Request) -> Response:
        return json_response(v2.ServerMetadata(name="tradewind", version=tradewind.__version__))

    def model_metadata(self, model: ServedModel, request: Request) -> Response:
        return json_response(v2.metadata(model, self._serving.version))

    def model_config(self, model: ServedModel, request: Request) -> Response:
        return json_response(about.config(model, self._serving.execution_of(model)))

    def statistics(self, request: Request, models: Iterable[ServedModel] | None = None) -> Response:
        return json_response(about.Statistics(self._replica.statistics(models)))

    def index(self, request: Request) -> Response:
        return json_response(self._replica.index())

    def metrics(self, request: Request) -> Response:
        return Response(200, self._replica.render_metrics(), CONTENT_TYPE_LATEST)

    def openapi(self, request: Request) -> Response:
        return Response(200, self._document)

    @cached_property
    def _document(self) -> bytes:
        serving = self._serving
        return msgspec.json.encode(
            describe(list(serving.models), serving.version, serving.recommender is not None)
        )

    def infer(self, model: ServedModel, request: Request) -> Work:
        """Run a model on the tensors of an Open Inference Protocol request."""
        data, start = request.data, request.start
        if CONTENT_ENCODING in request.headers:
            data, start = plain_body(request, self._replica.max_bytes), 0
        asked, prepared = self._forms.read(model, data, start, request.header(HEADER_LENGTH))
        job = self.submit(model, asked, prepared, request)
        return Work(self._serving, model.program, job, partial(self._inferred, model, asked))

    def submit(self, model: ServedModel, asked: v2.InferRequest, prepared: Prepared, request: Request) -> Job:
        """Queue an inference; `request` carried it, and its headers say on what terms."""
        parameters, timeout_us = asked.parameters, v2.timeout_us(asked)
        claim, priority = request.claim or self._claim(request), parameters.get("priority")
        deadline_s = claim.deadline_s
        if timeout_us is not None:
            deadline_s = request.arrived_s + self._budget_s(request, timeout_us)
        caller = claim.caller if priority is None else self._caller(request, priority)
        level = _min_level(request, parameters.get("min_level"))
        wish = Wish(caller, request.arrived_s, deadline_s, level, model.k_of(parameters))
        return enter(self._serving.dispatcher, model.program, prepared, wish)

    def recommend(self, model: RecommendModel, request: Request) -> Work | Fetch:
        """Recommend items for a user's history, or have what is stored of the user fetched first."""
        asked = recommend.read(plain_body(request, self._replica.max_bytes))
        if asked.user_id is not msgspec.UNSET:
            return self._fetch(model, request, asked, str(asked.user_id))
        return self._recommend(model, request, asked)

    def recommend_fetched(self, model: RecommendModel, request: Request, fetch: Fetch) -> Work:
        """Recommend items for what was fetched of a user, and what the request adds."""
        return self._recommend(model, request, fetch.asked, fetch.future.result())

    def _recommend(
        self,
        model: RecommendModel,
        request: Request,
        asked: RecommendRequest,
        fetched: Fetched | None = None,
    ) -> Work:
        prepared, k = recommend.prepare(asked, model.catalogue, self._past(model, fetched))
        wish = self._wish(request, asked, k)
        if fetched is not None:
            # For so long it did not wait at our door.
            wish = wish._replace(arrived_s=wish.arrived_s + fetched.seconds)
        job = enter(self._serving.dispatcher, model.program, prepared, wish)
        outcome = None if fetched is None else fetched.outcome
        return Work(self._serving, model.program, job, partial(self._recommended, model, k, outcome), fetched)

    def _fetch(
        self, model: RecommendModel, request: Request, asked: RecommendRequest, user: str
    ) -> Work | Fetch:
        features = self._replica.features
        if features is None:
            raise RequestError(
                400, "user_id: this endpoint has no feature store (`features` of its file); send `history`"
            )
        wish = self._wish(request, asked, recommend.k_of(asked, model.catalogue))
        until_s = wait_until_s(self._serving.dispatcher, model.program, wish)
        found = features.fetch(user, until_s)
        if isinstance(found, Fetched):
            return self._recommend(model, request, asked, found)
        return Fetch(found, asked)

    def _past(self, model: RecommendModel, fetched: Fetched | None) -> Past | None:
        if fetched is None or fetched.stored is None:
            return None
        past, unknown = past_of(fetched.stored, model.catalogue)
        if self._replica.features is not None:
            self._replica.features.metrics.observe_dropped(unknown)
        return past

    def _wish(self, request: Request, asked: RecommendRequest, k: int) -> Wish:
        claim = request.claim or self._claim(request)
        level = _min_level(request, asked.min_level)
        return Wish(claim.caller, request.arrived_s, claim.deadline_s, level, k)

    def _inferred(self, model: ServedModel, asked: v2.InferRequest, result: Result) -> Response:
        values = model.finish(result.tensors, asked.parameters)
        answer = v2.render(model, self._serving.version, asked, values)
        level = self.level(model, result)
        if answer.header_length is None:
            return Response(200, answer.body, JSON, level)
        return Response(200, answer.body, BINARY, ((v2.HEADER_LENGTH, str(answer.header_length)), *level))

    def _recommended(
        self, model: RecommendModel, k: int, outcome: Outcome | None, result: Result
    ) -> Response:
        answer = recommend.render(self._serving.label, k, result.tensors, model.catalogue, result.level)
        headers = self.level(model, result)
        if outcome is not None:
            headers = (*headers, (names.HEADER_FEATURES, outcome))
        return json_response(answer, headers=headers)

    def level(self, model: ServedModel, result: Result) -> Headers:
        """Return the header that names an answer's quality level, where the model has several."""
        lane = self._serving.dispatcher.lane(model.program)
        return ((names.HEADER_LEVEL, result.level),) if len(lane.level_names) > 1 else ()

    def turn(self, request: Request) -> Turn | None:
        """Say which class a request seems to be of, and when it is due; None where it only can be told what is wrong."""
        try:
            claim = request.claim or self._claim(request)
            caller = claim.caller if claim.final else self._caller(request, _stated_priority(request))
        except RequestError:
            return None
        return Turn(caller.priority, claim.deadline_s)

    def no_time(self, model: ServedModel, request: Request) -> bool:
        """Whether to refuse a request unread: it waited too long to be read, or too much waits before it."""
        dispatcher, metrics = self._serving.dispatcher, self._replica.metrics
        lane = dispatcher.lane(model.program)
        if lane.instant:
            return False  # it can be answered without a worker
        caller, deadline_s, final = request.claim or self._claim(request)
        if not final:
            return False
        if waited_too_long(time.monotonic() - request.arrived_s, deadline_s - request.arrived_s):
            metrics.observe_refusal(model.program, "door", caller)
        elif sum(lane.rows) < lane.room:
            return False  # hardly, and it will be known once it is read
        elif not dispatcher.predict(model.program, deadline_s, caller=caller).admit:
            metrics.observe_refusal(model.program, "admission", caller)
        else:
            return False
        return True

    def _claim(self, request: Request) -> Claim:
        """Read what the headers say: once, `request.claim` has it from then on."""
        head = request.head
        stated = None if head is None else head.stated
        if stated is None:
            stated = Stated(self._caller(request), self._budget_s(request))
            if head is not None:
                head.stated = stated
        final = not _decides(request)
        claim = request.claim = Claim(stated.caller, request.arrived_s + stated.budget_s, final)
        return claim

    def _caller(self, request: Request, priority: object = None) -> Caller:
        return self._replica.callers.caller_of(request.header, priority)

    def _budget_s(self, request: Request, timeout_us: int | None = None) -> float:
        return budget_s(request.header(DEADLINE), self._replica.spec.slo.latency_ms, timeout_us)


def _decides(request: Request) -> bool:
    """Whether the JSON of a body may say how long there is, or how important it is."""
    data, start = request.data, request.start
    end = start + _head_length(request)
    return data.find(STATED_TIMEOUT, start, end) >= 0 or data.find(STATED_PRIORITY, start, end) >= 0


def _min_level(request: Request, stated: object) -> object:
    """Return the least level that a request accepts, as its body or else its header states it."""
    return request.header(MIN_LEVEL) if stated is None else stated


def _stated_priority(request: Request) -> str | None:
    """Return what the JSON of a body seems to say of its importance, which nobody has read yet."""
    data, start = request.data, request.start
    at = data.find(STATED_PRIORITY, start, start + _head_length(request))
    value = None if at < 0 else _VALUE.match(data, at + len(STATED_PRIORITY))
    return None if value is None else value[1].decode()


def _head_length(request: Request) -> int:
    """Bytes of a body that may be JSON: what follows them are tensors."""
    stated = request.headers.get(HEADER_LENGTH)
    return int(stated) if stated and stated.isdigit() and len(stated) < 19 else request.num_bytes
