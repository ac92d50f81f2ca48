"""Filters from a request to its answer: nothing that does not match is ever in it, at any level."""

import json
import pathlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import msgspec
import numpy as np
import pytest
import torch

from tests.serve.conftest import POPULAR, Server, running
from tests.serve.shop import ATTRIBUTES, FILTERS, held, write_shop
from tests.serve.test_metrics import scrape
from tests.serve.test_pipeline import batch, best
from tests.serve.test_server import stopped, until_in_flight
from tradewind.client import Client, Options
from tradewind.models import open_package
from tradewind.retrieve import Filter, FilterError
from tradewind.retrieve.filters import Equal, Flag
from tradewind.serve.filtering import FILTER, FILTER_BYTES
from tradewind.serve.runners import runners_of
from tradewind.spec import QualityLevel

RECOMMEND, INFER = "/v1/recommend", "/v2/models/shop/infer"
LEVELS = (QualityLevel(candidates=30), QualityLevel(candidates=12), QualityLevel(rank=False, candidates=11))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_shop(tmp_path_factory.mktemp("models") / "shop")


@pytest.fixture(scope="module")
def server(shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(shop, tmp_path_factory.mktemp("home"), "--slo", "60s") as server:
        yield server


def positions(answer: httpx2.Response) -> list[int]:
    """The items of an answer to `POST /v1/recommend`."""
    assert answer.status_code == 200, answer.text
    return [int(item["item"][1:]) for item in answer.json()["items"]]


def plain(wanted: Filter | None) -> object:
    return msgspec.to_builtins(wanted)


def filtered(users: list[dict], filters: list[Filter | None]) -> dict[str, torch.Tensor]:
    """A batch of users, each with a filter or none."""
    texts = [msgspec.json.encode(wanted) if wanted else b"" for wanted in filters]
    return batch(*users) | {
        FILTER: torch.tensor(list(b"".join(texts)), dtype=torch.uint8),
        FILTER_BYTES: torch.tensor([len(text) for text in texts]),
    }


@pytest.mark.parametrize("index", ["exact", "auto", "faiss", "naive"])
def test_at_every_level_users_of_one_batch_get_what_their_own_filter_holds(shop, table, index):
    """Every kind of filter beside none, with and without a history: the best of what it holds, as many as there are."""
    runners = runners_of(open_package(shop), 8, 30, index, LEVELS)
    assert len(runners) == len(LEVELS)
    users = [{"values": [9, 4], "seen": [9, 4], "k": 8}, {"k": 8}]
    rows = [(user, wanted) for wanted in FILTERS for user in users]
    for runner in runners.values():
        top = runner.run(filtered([user for user, _ in rows], [wanted for _, wanted in rows]))
        for (user, wanted), items in zip(rows, top["items"].tolist(), strict=True):
            found = [item for item in items if item]
            assert set(found) <= held(wanted) - {*user.get("seen", [])}
            if "values" in user:
                ranked = [i for i in best(table, [9, 4], [9, 4], 40) if i in held(wanted)]
                assert found == ranked[:8]
            else:
                popular = [p for p in POPULAR if p in held(wanted)]
                assert found[: len(popular)] == popular
                assert wanted is None or len(found) == min(8, len(held(wanted)))


def test_the_scores_of_a_user_without_a_history_are_one_over_the_rank(shop):
    """Also of the items that come after the popular ones of the filter."""
    runner = runners_of(open_package(shop), 8, 30, "exact")["recommend"]
    top = runner.run(filtered([{"k": 4}], [Flag(field="in_stock", value=False)]))
    assert not {*POPULAR} & {*top["items"][0].tolist()}
    assert top["scores"][0].tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])


def test_filters_of_every_kind_share_a_batch_of_a_real_server(client, server, table):
    """Sent while the workers stand still, so that they are run together."""
    rows_before = scrape(client, server.url)
    ask = {"history": ["i9", "i4"], "k": 10}

    def post(wanted: Filter | None) -> httpx2.Response:
        body = ask | ({"filter": plain(wanted)} if wanted else {})
        return httpx2.post(server.url + RECOMMEND, json=body, timeout=60, trust_env=False)

    with ThreadPoolExecutor(len(FILTERS) + 1) as pool:
        with stopped(client, server):
            running_alone = pool.submit(post, None)
            until_in_flight(client, server, 1)
            asked = [pool.submit(post, wanted) for wanted in FILTERS]
            until_in_flight(client, server, 1 + len(FILTERS))
        answers = [future.result() for future in asked]
    positions(running_alone.result())
    for wanted, answer in zip(FILTERS, answers, strict=True):
        expected = [i for i in best(table, [9, 4], [9, 4], 40) if i in held(wanted)][:10]
        assert positions(answer) == expected
    count = ("tradewind_batch_rows_count", ("model", "recommend"))
    assert scrape(client, server.url)[count] - rows_before.get(count, 0) <= 2


def test_the_client_sends_filters(server, table):
    """As objects or as their JSON."""
    wanted = FILTERS[0]
    expected = [i for i in best(table, [9, 4], [9, 4], 40) if i in held(wanted)][:10]
    with Client(server.url, Options(deadline_ms=30_000)) as asking:
        for stated in (wanted, plain(wanted)):
            found = asking.recommend(["i9", "i4"], k=10, filter=stated)
            assert [int(item.item[1:]) for item in found.items] == expected


def test_the_v2_protocol_takes_a_filter_as_a_parameter(client, server):
    """JSON in a string; it counts for every row of the request."""
    wanted = Flag(field="in_stock")
    inputs = [{"name": "history", "shape": [2, 1], "datatype": "BYTES", "data": ["i9", "i4"]}]
    parameters = {"filter": json.dumps(plain(wanted)), "k": 12}
    answer = client.post(server.url + INFER, json={"inputs": inputs, "parameters": parameters})
    data = {o["name"]: o["data"] for o in answer.json()["outputs"]}["items"]
    assert len(data) == 24
    assert {int(item[1:]) for item in data} <= held(wanted)


WRONG = [
    ({"op": "eq", "field": "brnad", "value": "acme"}, "no attribute 'brnad'; did you mean 'brand'?"),
    ({"op": "range", "field": "brand", "min": 3}, "'brand' is a category"),
    ({"op": "eq", "field": "price", "value": "dear"}, "'price' is a number, not 'dear'"),
    ({"op": "flag", "field": "in_stock", "value": 1}, "`filter.value`"),
    ({"op": "and", "filters": [{"op": "tags", "field": 3}]}, "`filter.filters[0].field`"),
    ({"op": "or", "filters": []}, "empty list"),
    ({"op": "near", "field": "price"}, "near"),
    ({"op": "eq", "field": "brand", "value": "a" * 70_000}, "at most 65536"),
    ({"op": "in", "field": "year", "values": [1] * 5_000}, "more than 4096 values"),
    ("brand = 'acme'", "Expected `object`"),
]


@pytest.mark.parametrize(("wanted", "why"), WRONG)
def test_a_malformed_filter_is_refused_by_name(client, server, wanted, why):
    """400 and what is wrong with it, on both ways to send it."""
    answers = [client.post(server.url + RECOMMEND, json={"history": ["i1"], "filter": wanted})]
    inputs = [{"name": "history", "shape": [1, 1], "datatype": "BYTES", "data": ["i1"]}]
    parameters = {"filter": json.dumps(wanted)}
    answers.append(client.post(server.url + INFER, json={"inputs": inputs, "parameters": parameters}))
    for answer in answers:
        assert answer.status_code == 400
        assert why in answer.json()["error"]


def test_what_is_no_json_at_all_is_refused(client, server):
    """Cut off, or nested beyond reason; a parameter that is no string, or an empty one."""
    for text in ('{"op"', '{"op":"not","filter":' * 5_000 + "1" + "}" * 5_000):
        body = '{"history": ["i1"], "filter": ' + text + "}"
        assert client.post(server.url + RECOMMEND, content=body).status_code == 400
    inputs = [{"name": "history", "shape": [1, 1], "datatype": "BYTES", "data": ["i1"]}]
    for value in ({"op": "flag", "field": "in_stock"}, "", 3):
        answer = client.post(server.url + INFER, json={"inputs": inputs, "parameters": {"filter": value}})
        assert answer.status_code == 400
        assert "filter" in answer.json()["error"]


def test_a_package_without_attributes_refuses_every_filter(client, recommend_server):
    """It says that there are none; null is no filter."""
    wanted = {"op": "eq", "field": "brand", "value": "acme"}
    answer = client.post(recommend_server.url + RECOMMEND, json={"history": ["i1"], "filter": wanted})
    assert answer.status_code == 400
    assert "no attribute 'brand'; there are none" in answer.json()["error"]
    assert positions(client.post(recommend_server.url + RECOMMEND, json={"history": ["i1"], "filter": None}))


def test_the_popular_list_honours_a_filter_or_is_not_given(client, shop, tmp_path):
    """While no worker answers: the matching ones of the list, and no answer where it has none though others match."""
    some, none = Flag(field="in_stock"), Equal(field="year", value=1990 + 8)
    with running(shop, tmp_path, "--slo", "4s") as server, ThreadPoolExecutor(3) as pool:

        def post(wanted: Filter, **headers: str) -> httpx2.Response:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            body = {"history": [f"i{POPULAR[0]}"], "filter": plain(wanted)}
            return httpx2.post(server.url + RECOMMEND, json=body, headers=names, timeout=60, trust_env=False)

        with stopped(client, server):
            first = pool.submit(post, some, x_deadline_ms="60000")
            until_in_flight(client, server, 1)
            listed, unlisted = pool.submit(post, some), pool.submit(post, none)
            assert listed.result().headers["x-level"] == "popular"
            assert positions(listed.result()) == [p for p in POPULAR[1:] if p in held(some)]
            assert unlisted.result().status_code == 429
        assert {*positions(first.result())} <= held(some)
        assert positions(
            client.post(server.url + RECOMMEND, json={"history": [], "filter": plain(none)})
        ) == [8]


def test_the_openapi_description_has_the_filter_in_it(client, server):
    """Every kind of condition, named by its `op`, and nested ones."""
    schemas = client.get(server.url + "/openapi.json").json()["components"]["schemas"]
    assert schemas["RecommendRequest"]["properties"]["filter"]["anyOf"][0]["$ref"].endswith("/Filter")
    kinds = {"eq", "in", "range", "flag", "tags", "and", "or", "not"}
    assert {*schemas["Filter"]["discriminator"]["mapping"]} == kinds


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"price": torch.ones(5)}, "differ in length"),
        ({"brand": torch.full((41,), 9)}, "attribute 'brand': a code is outside -1 to 1"),
        ({"genres.offsets": torch.zeros(42, dtype=torch.int64)}, "attribute 'genres': its offsets"),
        ({"colour.offsets": torch.zeros(42, dtype=torch.int64)}, "attribute 'colour' has no tensor"),
        ({"price": torch.full((41,), torch.inf)}, "attribute 'price' holds infinities"),
        ({"brand": torch.ones(41)}, "attribute 'brand' is torch.float32"),
        ({"price": torch.ones(41, 2)}, r"attribute 'price' has shape \[41, 2\]"),
    ],
)
def test_a_package_whose_attributes_do_not_fit_is_refused_when_loaded(shop, tmp_path, changed, why):
    """The field is named; the first request is not the one to find out."""
    package = open_package(shop)
    tensors = {group: package.tensors(group) for group in package.manifest.tensors}
    vocabularies = {name: package.vocabulary(name) for name in package.manifest.vocabularies}
    tensors["attributes"] |= changed
    broken = write_shop(tmp_path / "broken", tensors=tensors, vocabularies=vocabularies)
    with pytest.raises(FilterError, match=why):
        runners_of(open_package(broken), 4, 20, "exact")


def test_filters_are_in_what_is_measured_at_start(shop):
    """Every other user of a sample has one, of each attribute in turn."""
    runner = runners_of(open_package(shop), 8, 20, "exact")["recommend"]
    asked: list[list[Filter | None]] = []
    index = runner.recommender._index
    search = index.search
    index.search = lambda *a, filters, **k: (asked.append(filters), search(*a, filters=filters, **k))[1]
    runner.describe(iter(np.arange(1000.0)).__next__, 1)
    largest = max(asked, key=len)
    assert [wanted is None for wanted in largest] == [False, True] * 4
    fields = {wanted.field for wanted in largest if wanted}
    assert len(fields) == 4
    assert fields <= {*ATTRIBUTES.columns}
