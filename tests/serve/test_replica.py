"""What a replica serves under which names, and when it is ready."""

import msgspec
import pytest

from tradewind.serve.accesslog import AccessLog
from tradewind.serve.execution import WorkerOptions
from tradewind.serve.handlers import Handlers
from tradewind.serve.openapi import describe
from tradewind.serve.replica import Replica
from tradewind.serve.wire import Description, Port, Program
from tradewind.spec import EndpointSpec

X = Port(name="x", dtype="FP32", shape=(-1,))


def program() -> Program:
    return Program(inputs=(X,), outputs=(X,), profile_s={1: 0.001, 8: 0.002}, max_rows=8)


def replica(task: str, *programs: str, name: str | None = None, candidates: int = 200) -> Replica:
    """A replica that was told what its worker has loaded."""
    spec = EndpointSpec(model="m@production", name=name, candidates=candidates)
    made = Replica(spec, WorkerOptions("unused", 8, 0), "3", 1, AccessLog("off"))
    description = Description(
        name="package", task=task, digest="", config={}, programs={p: program() for p in programs}
    )
    made.serving.adopt(description, msgspec.json.encode(["", "a", "b"]))
    return made


def test_each_program_is_a_model_and_a_single_one_has_the_packages_name_too():
    """So a client needs to know either."""
    assert list(replica("generic", "encode", "rank").serving.models) == ["encode", "rank"]
    single = replica("generic", "net", name="mine")
    assert list(single.serving.models) == ["net", "mine"]
    assert [m.name for m in single.serving.models.values()] == ["net", "mine"]
    assert {m.program for m in single.serving.models.values()} == {"net"}


def test_a_recommender_is_one_model_whose_k_is_bounded_by_its_candidates():
    """The catalogue's size bounds it as well."""
    made = replica("recommend", "recommend")
    assert list(made.serving.models) == ["package"]
    assert made.serving.recommender is made.serving.models["package"]
    assert made.serving.recommender.catalogue.max_k == 2
    assert replica("recommend", "recommend", candidates=1).serving.recommender.catalogue.max_k == 1
    assert made.label == "package@3"


def test_it_is_ready_with_a_worker_and_not_while_draining():
    """And says which of the two it is."""
    made = replica("generic", "net")
    assert not made.ready
    assert made.why_not_ready == "no model worker is loaded"
    made.draining = True
    assert made.why_not_ready == "draining"


@pytest.mark.parametrize("task", ["recommend", "generic"])
def test_every_route_is_described_and_every_description_is_a_route(task):
    """The OpenAPI document and the server's routes are the same, with the same methods."""
    made = replica(task, "recommend" if task == "recommend" else "net", name="m")
    document = describe(list(made.serving.models), made.serving.version, made.serving.recommender is not None)
    described = {
        path.format(model=model, version="3"): method.upper()
        for path, item in document["paths"].items()
        for method in item.keys() & {"get", "post", "put", "delete"}
        for model in made.serving.models
    }
    assert described == Handlers(made).routes().methods
