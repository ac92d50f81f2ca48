"""A fetch as a stage of a request: when it is begun, what it may take, and how the request goes on after it."""

import asyncio
import gc
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from tests.serve.test_replica import program
from tradewind.serve.accesslog import AccessLog
from tradewind.serve.app import App
from tradewind.serve.execution import WorkerOptions
from tradewind.serve.features import Fetched, Outcome, encode
from tradewind.serve.features.base import decode
from tradewind.serve.features.metrics import FeatureMetrics
from tradewind.serve.http import Pending, Request, Response
from tradewind.serve.jobs import Job, Result, Tensor
from tradewind.serve.quota import Allowance, Quota
from tradewind.serve.replica import Replica
from tradewind.serve.watch import Finished
from tradewind.serve.wire import Description
from tradewind.spec import EndpointSpec

BUDGET_S = 60.0


class Held:
    """A feature store that answers when it is told to."""

    def __init__(self) -> None:
        self.metrics = FeatureMetrics(CollectorRegistry())
        self.asked: list[tuple[str, float]] = []

    def fetch(self, user: str, until_s: float) -> asyncio.Future[Fetched]:
        self.asked.append((user, until_s))
        return asyncio.get_running_loop().create_future()


def replica(version: str = "3", **config: Any) -> Replica:
    """A replica of a recommender of the items a and b."""
    made = Replica(EndpointSpec(model="m"), WorkerOptions("unused", 8, 0), version, 1, AccessLog("off"))
    description = Description(
        name="r", task="recommend", digest="", config=config, programs={"recommend": program()}
    )
    made.serving.adopt(description, msgspec.json.encode(["", "a", "b"]))
    return made


class Asked:
    """An app over a replica whose features are held."""

    def __init__(self, made: Replica) -> None:
        self.replica, self.features = made, Held()
        made.features = self.features  # type: ignore[assignment]
        self.app = App(made)
        self.quota = Quota("shop", Allowance(), 0.0)

    def ask(self, budget_s: float = BUDGET_S, waited_s: float = 0.0, **body: Any) -> Response | Pending:
        deadline = f"{budget_s * 1e3:g}".encode()
        request = Request("POST", "/v1/recommend", {b"x-deadline-ms": deadline}, True)
        request.body = msgspec.json.encode({"user_id": "u", **body})
        request.arrived_s, request.quota = time.monotonic() - waited_s, self.quota
        return self.app.answer(request)

    def fetched(self, outcome: Outcome = Outcome.HIT, *history: str, seconds: float = 0.0) -> Fetched:
        return Fetched(outcome, decode(encode(history)), seconds, time.monotonic() - seconds)

    def go_on(self, pending: Response | Pending, fetched: Fetched) -> Response | Pending:
        """What the connection does once the features are there."""
        assert isinstance(pending, Pending)
        pending.future.set_result(fetched)
        return pending.respond(pending.future)


def answered(use: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(use())


def jobs(made: Replica) -> list[Job]:
    return [job for queue in made.serving.dispatcher.lane("recommend").queues for job in queue]


def values(job: Job) -> list[int]:
    return memoryview(bytes(job.tensors["values"].data)).cast("q").tolist()


RESULT = Result(
    {"items": Tensor("INT64", (1, 0), b""), "scores": Tensor("FP32", (1, 0), b"")}, 0.0, 0.0, 1, "recommend"
)


def test_a_request_is_queued_once_its_user_is_there():
    """Not before; the answer says what came of it."""

    async def use() -> None:
        asked, finished = Asked(replica()), list[Finished]()
        asked.replica.watchers.append(finished.append)
        pending = asked.ask(history=["b"])
        assert asked.replica.in_flight == 0
        queued = asked.go_on(pending, asked.fetched(Outcome.HIT, "a", "gone"))
        (job,) = jobs(asked.replica)
        assert values(job) == [1, 2]
        assert isinstance(queued, Pending)
        queued.future.set_result(RESULT)
        response = queued.respond(queued.future)
        assert isinstance(response, Response)
        assert (response.status, dict(response.headers)["x-features"]) == (200, "hit")
        assert asked.quota.in_flight == 0
        assert [f.fetched and f.fetched.outcome for f in finished] == [Outcome.HIT]

    answered(use)


def test_a_request_without_a_user_is_queued_at_once():
    """And its answer says nothing of features."""

    async def use() -> None:
        asked = Asked(replica())
        request = Request("POST", "/v1/recommend", {b"x-deadline-ms": b"60000"}, True)
        request.body, request.arrived_s = b'{"history": ["a"]}', time.monotonic()
        pending = asked.app.answer(request)
        assert len(jobs(asked.replica)) == 1
        assert asked.features.asked == []
        pending.future.set_result(RESULT)
        assert "x-features" not in dict(pending.respond(pending.future).headers)

    answered(use)


@pytest.mark.parametrize("where", ["fetching", "queued"])
def test_a_client_that_leaves_gives_its_place_up(where):
    """In the fetch, or in the queue after it; counted out once."""

    async def use() -> None:
        asked = Asked(replica())
        pending = asked.ask(history=["b"])
        assert asked.quota.in_flight == 1
        if where != "fetching":
            pending = asked.go_on(pending, asked.fetched())
            assert (asked.replica.in_flight, asked.quota.in_flight) == (1, 1)
        assert isinstance(pending, Pending)
        pending.cancel()
        assert pending.future.cancelled()
        response = pending.respond(pending.future)
        assert isinstance(response, Response)
        assert (response.status, asked.replica.in_flight, asked.quota.in_flight) == (499, 0, 0)

    answered(use)


@pytest.mark.parametrize(
    ("body", "why"),
    [({"history": ["nope"]}, b"unknown item"), ({"user": {"age": 1}}, b"unknown user feature")],
)
def test_what_is_wrong_with_a_request_is_said_after_its_fetch(body, why):
    """And it is counted out."""

    async def use() -> None:
        asked = Asked(replica())
        response = asked.go_on(asked.ask(**body), asked.fetched())
        assert isinstance(response, Response)
        assert (response.status, asked.quota.in_flight) == (400, 0)
        assert why in response.body

    answered(use)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"user_id": ""}, b"length >= 1"),
        ({"user_id": "u" * 257}, b"length <= 256"),
        ({"user_id": True}, b"user_id"),
        ({"k": 3}, b"k must be an integer from 1 to 2"),
        ({"min_level": "best"}, b"best"),
        ({"history": [{"item": 1.5}]}, b"history"),
    ],
)
def test_what_can_be_seen_to_be_wrong_is_not_fetched_for(body, why):
    async def use() -> None:
        asked = Asked(replica())
        response = asked.ask(**body)
        assert isinstance(response, Response)
        assert (response.status, asked.features.asked, asked.quota.in_flight) == (400, [], 0)
        assert why in response.body

    answered(use)


def test_without_a_feature_store_a_user_is_a_400_that_says_what_to_set():
    async def use() -> None:
        asked = Asked(replica())
        asked.replica.features = None
        response = asked.ask()
        assert isinstance(response, Response)
        assert response.status == 400
        assert b"`features` of its file" in response.body

    answered(use)


def test_nothing_is_fetched_for_a_request_that_is_refused_at_the_door():
    async def use() -> None:
        asked = Asked(replica())
        response = asked.ask(budget_s=1.0, waited_s=0.5)
        assert isinstance(response, Response)
        assert (response.status, asked.features.asked) == (429, [])

    answered(use)


def test_a_fetch_leaves_time_for_the_cheapest_level():
    """What the level that the request accepts takes, and writing the answer, is not the fetch's to use."""

    async def use() -> None:
        asked = Asked(replica())
        began = time.monotonic()
        pending = asked.ask(budget_s=0.5)
        ended = time.monotonic()
        ((user, until_s),) = asked.features.asked
        lane = asked.replica.serving.dispatcher.lane("recommend")
        least, most = (
            lane.due_s(now + 0.5, now) - lane.cheapest.profile.bound_s(1) for now in (began, ended)
        )
        assert least < began + 0.5
        assert least <= until_s <= most
        assert user == "u"
        pending.cancel()

    answered(use)


@pytest.mark.parametrize(("seconds", "queued"), [(0.05, 1), (0.0, 0)])
def test_what_a_fetch_took_is_not_waiting_at_the_door(seconds, queued):
    """A request that has waited for its features is ranked; one that has waited for us gets what takes no time."""

    async def use() -> None:
        asked = Asked(replica(popular=[1]))
        pending = asked.ask(budget_s=0.4)
        pending.respond.args[0].request.arrived_s -= 0.05
        after = asked.go_on(pending, asked.fetched(Outcome.HIT, "b", seconds=seconds))
        assert isinstance(after, Pending)
        assert (len(jobs(asked.replica)), after.future.done()) == (queued, not queued)
        after.cancel()

    answered(use)


def test_a_request_that_waited_too_long_to_be_read_is_answered_without_a_fetch():
    """Where there is an answer that needs no worker."""

    async def use() -> None:
        asked = Asked(replica(popular=[1]))
        asked.ask(budget_s=1.0, waited_s=0.5)
        ((_, until_s),) = asked.features.asked
        assert until_s < time.monotonic(), "the store is told that there is no time"

    answered(use)


def test_a_request_whose_version_ended_meanwhile_goes_to_the_one_that_serves():
    """With that one's items; nothing is queued where nothing may come any more, and the answer names who made it."""

    async def use() -> None:
        asked = Asked(replica("3"))
        old = asked.replica.serving
        pending = asked.ask(history=["a"])
        new = replica("4").serving
        new.recommender.catalogue._positions = {"a": 2, "b": 1}
        asked.replica.serving = new
        queued = asked.go_on(pending, asked.fetched(Outcome.HIT, "b"))
        assert (old.dispatcher.in_flight, new.dispatcher.in_flight) == (0, 1)
        assert values(jobs(asked.replica)[0]) == [1, 2]
        assert isinstance(queued, Pending)
        queued.future.set_result(RESULT)
        response = queued.respond(queued.future)
        assert isinstance(response, Response)
        assert dict(response.headers)["x-tradewind-version"] == "4"
        assert msgspec.json.decode(response.body)["model"] == "r@4"

    answered(use)


def test_a_request_whose_route_is_gone_meanwhile_is_a_404():
    """A version that recommends nothing has taken over."""

    async def use() -> None:
        asked = Asked(replica())
        pending = asked.ask()
        other = replica("4")
        other.serving.recommender = None
        asked.replica.serving = other.serving
        response = asked.go_on(pending, asked.fetched())
        assert isinstance(response, Response)
        assert (response.status, asked.quota.in_flight) == (404, 0)

    answered(use)


def test_an_error_of_ours_in_between_is_a_500_and_counted_out(monkeypatch):
    async def use() -> None:
        asked = Asked(replica())
        pending = asked.ask()
        monkeypatch.setattr(
            "tradewind.serve.handlers.past_of",
            lambda stored, catalogue: (_ for _ in ()).throw(ValueError("bug")),
        )
        response = asked.go_on(pending, asked.fetched())
        assert isinstance(response, Response)
        assert (response.status, asked.quota.in_flight) == (500, 0)

    answered(use)


@pytest.mark.parametrize("body", [{}, {"history": ["nope"]}], ids=["answered", "refused"])
def test_a_request_that_was_fetched_for_leaves_nothing_for_the_garbage_collector(body):
    """What it waited for goes with it."""

    async def use() -> weakref.ref[Any]:
        asked = Asked(replica())
        pending = asked.ask(**body)
        assert isinstance(pending, Pending)
        waited_for = weakref.ref(pending.future)
        after = asked.go_on(pending, asked.fetched())
        if isinstance(after, Pending):
            after.future.set_result(RESULT)
            after.respond(after.future)
        return waited_for

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(use())() is None
    finally:
        gc.enable()
