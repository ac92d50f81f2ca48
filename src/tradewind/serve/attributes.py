"""Items' attributes in the worker: read from the package, and filters on them to measure with."""

import itertools

import numpy as np

from tradewind.models import Package
from tradewind.retrieve import Filter
from tradewind.retrieve.attributes import Attributes
from tradewind.retrieve.columns import Boolean, Category, Column, Multi, Number
from tradewind.retrieve.filters import Equal, Flag, Range, Tags
from tradewind.retrieve.stored import GROUP, restored


def attributes_of(package: Package, num_items: int) -> Attributes | None:
    """Return the attributes of the items, the padding item 0 included; None where the package declares none.

    Raises FilterError, a TradewindError, naming the field that is not as it must be.
    """
    manifest = package.manifest
    tensors = package.tensors(GROUP) if GROUP in manifest.tensors else {}
    vocabularies = {name: package.vocabulary(name) for name in manifest.vocabularies if name != "item"}
    attributes = restored(tensors, vocabularies, num_items)
    return attributes if attributes.columns else None


def typical(attributes: Attributes) -> list[Filter]:
    """Return one filter for each attribute that holds some items: what requests may ask, to measure with."""
    found = (_condition(field, column) for field, column in attributes.columns.items())
    return [wanted for wanted in found if wanted is not None]


def shared_out(filters: list[Filter], rows: int) -> list[Filter | None]:
    """Return a filter for every other user of a batch, the first included."""
    turns = itertools.cycle(filters or [None])
    return [next(turns) if row % 2 == 0 else None for row in range(rows)]


def _condition(field: str, column: Column) -> Filter | None:
    match column:
        case Boolean():
            return Flag(field=field)
        case Category(names=names) if names:
            return Equal(field=field, value=next(iter(names)))
        case Multi(names=names) if names:
            return Tags(field=field, any=(next(iter(names)),))
        case Number(values=values) if np.isfinite(values).any():
            return Range(field=field, min=float(np.nanmedian(values)))
    return None
