"""Attributes as a package keeps them: a group of tensors, and a vocabulary for each category and each tags.

Under its name a field has a BOOL tensor [N] (a flag), a numeric one [N] (a number; NaN for none), or integer codes into
the vocabulary `attribute-<field>`: [N] with -1 for none (a category), or those of all items one after another with
`<field>.offsets` [N + 1] beside them (tags: item i has codes[offsets[i]:offsets[i + 1]]).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tradewind.retrieve.attributes import Attributes
from tradewind.retrieve.columns import Boolean, Category, Column, Multi, Number
from tradewind.retrieve.filters import FilterError

GROUP = "attributes"
"""The tensor group of a package that holds them."""
_VOCABULARY, _OFFSETS = "attribute-", ".offsets"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*", re.ASCII)


class Stored(NamedTuple):
    """What to hand to `write_package`: `tensors={"attributes": tensors}`, and `vocabularies` beside the items'."""

    tensors: dict[str, torch.Tensor]
    vocabularies: dict[str, list[str]]


def stored(attributes: Attributes) -> Stored:
    """The attributes as tensors and vocabularies. Raises FilterError for a field whose name cannot name a file."""
    made = Stored({}, {})
    for field, column in attributes.columns.items():
        if not _NAME.fullmatch(field):
            raise FilterError(f"attribute {field!r}: name it with letters, digits, '_' and '-'")
        if isinstance(column, Category | Multi):
            made.vocabularies[_VOCABULARY + field] = list(column.names)
            made.tensors[field] = torch.from_numpy(column.codes)
        elif isinstance(column, Number | Boolean):
            made.tensors[field] = torch.from_numpy(column.values)
        if isinstance(column, Multi):
            made.tensors[field + _OFFSETS] = torch.from_numpy(column.offsets)
    return made


def restored(
    tensors: Mapping[str, torch.Tensor], vocabularies: Mapping[str, Sequence[str]], num_items: int
) -> Attributes:
    """The attributes of `num_items` items; other vocabularies are left alone.

    Raises FilterError naming the field whose parts do not fit each other, or the items.
    """
    words = {
        name.removeprefix(_VOCABULARY): texts
        for name, texts in vocabularies.items()
        if name.startswith(_VOCABULARY)
    }
    fields = [name for name in tensors if not name.endswith(_OFFSETS)]
    for field in (*words, *(name.removesuffix(_OFFSETS) for name in tensors)):
        if field not in fields:
            raise FilterError(f"attribute {field!r} has no tensor")
    attributes = Attributes(
        {f: _column(f, tensors[f], words.get(f), tensors.get(f + _OFFSETS)) for f in fields}
    )
    if fields and len(attributes) != num_items:
        raise FilterError(f"attributes have {len(attributes)} rows for {num_items} items")
    return attributes


def _column(
    field: str, tensor: torch.Tensor, words: Sequence[str] | None, offsets: torch.Tensor | None
) -> Column:
    if tensor.dim() != 1:
        raise FilterError(f"attribute {field!r} has shape {list(tensor.shape)}; give one value per item")
    if words is not None:
        return _coded(field, tensor, words, offsets)
    if offsets is not None:
        raise FilterError(f"attribute {field!r} has offsets and no vocabulary {_VOCABULARY + field!r}")
    if tensor.dtype == torch.bool:
        return Boolean(tensor.numpy())
    if not tensor.is_floating_point():
        return Number(_integers(field, tensor))
    values = tensor.to(torch.float64).numpy()
    if np.isinf(values).any():
        raise FilterError(f"attribute {field!r} holds infinities; NaN stands for none")
    return Number(values)


def _coded(
    field: str, tensor: torch.Tensor, words: Sequence[str], offsets: torch.Tensor | None
) -> Category | Multi:
    names = {text: code for code, text in enumerate(words)}
    codes = _integers(field, tensor)
    least = 0 if offsets is not None else -1
    if len(names) < len(words):
        raise FilterError(f"attribute {field!r}: its vocabulary holds a text twice")
    if len(codes) and not least <= codes.min() <= codes.max() < len(names):
        raise FilterError(f"attribute {field!r}: a code is outside {least} to {len(names) - 1}")
    if offsets is None:
        return Category(codes.astype(np.int32), names)
    ends = _integers(field, offsets)
    if ends.ndim != 1 or not len(ends) or ends[0] != 0 or ends[-1] != len(codes) or (np.diff(ends) < 0).any():
        raise FilterError(f"attribute {field!r}: its offsets do not go from 0 up to {len(codes)}")
    return Multi(ends, codes.astype(np.int32), names)


def _integers(field: str, tensor: torch.Tensor) -> npt.NDArray[Any]:
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise FilterError(f"attribute {field!r} is {tensor.dtype}; codes and offsets are integers")
    return tensor.to(torch.int64).numpy()
