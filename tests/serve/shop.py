"""The test's recommender with attributes of every kind, and filters on each."""

import pathlib
from typing import Any

from tests.serve.conftest import NUM_ITEMS, POPULAR, Encode, export_recommender
from tradewind.models import write_package
from tradewind.retrieve import Filter
from tradewind.retrieve.attributes import Attributes
from tradewind.retrieve.filters import And, Equal, Flag, In, Not, Or, Range, Tags
from tradewind.retrieve.naive import holds, rows_of
from tradewind.retrieve.stored import stored

BRANDS, GENRES = ["acme", "blue", None], [["jazz"], [], ["rock", "jazz"], ["folk"]]
NUMBERS = range(NUM_ITEMS + 1)
ATTRIBUTES = Attributes(
    {
        "brand": [BRANDS[i % 3] for i in NUMBERS],
        "price": [None if i % 7 == 0 else float(i) for i in NUMBERS],
        "in_stock": [i % 2 == 1 for i in NUMBERS],
        "genres": [GENRES[i % 4] for i in NUMBERS],
        "year": [1990 + i for i in NUMBERS],
    }
)
ROWS = rows_of(ATTRIBUTES)
FILTERS: list[Filter | None] = [
    None,
    Equal(field="brand", value="acme"),
    In(field="year", values=(1992, 1995, 2001, 2002)),
    Range(field="price", min=5, max=20),
    Flag(field="in_stock"),
    Flag(field="in_stock", value=False),
    Tags(field="genres", any=("folk", "rock")),
    Tags(field="genres", all=("rock", "jazz")),
    Not(filter=Range(field="price", max=39)),
    And(filters=(Flag(field="in_stock"), Equal(field="brand", value="blue"))),
    Or(filters=(Equal(field="year", value=2030), Tags(field="genres", any=("folk",)))),
    Equal(field="brand", value="nobody's"),
]


def held(wanted: Filter | None) -> set[int]:
    """The items that a filter holds, by its definition."""
    return {i for i in NUMBERS if i and (wanted is None or holds(wanted, ROWS[i]))}


def write_shop(path: pathlib.Path, **changed: Any) -> pathlib.Path:
    """A recommender package of 40 items with attributes."""
    tensors, vocabularies = stored(ATTRIBUTES)
    fields = {
        "name": "shop",
        "task": "recommend",
        "programs": export_recommender(),
        "tensors": {"items": {"embedding": Encode().table.detach()}, "attributes": tensors},
        "vocabularies": {"item": ["", *(f"i{n}" for n in range(1, NUM_ITEMS + 1))], **vocabularies},
        "config": {"max_history": 10, "user_features": ["age", "vip"], "popular": POPULAR},
    }
    write_package(path, **(fields | changed))
    return path
