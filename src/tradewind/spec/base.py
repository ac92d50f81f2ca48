"""The struct every spec derives from, and the way to the store and back."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from tradewind.errors import SpecError
from tradewind.spec.check import problems, without_unknown

T = TypeVar("T")


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen, keyword-only struct whose fields are checked however it was built."""

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(type(self)):
            for problem in problems(field.type, getattr(self, field.encode_name), field.encode_name):
                raise SpecError(f"{type(self).__name__}: {problem}")


def to_dict(spec: Spec) -> dict[str, Any]:
    """The spec as plain JSON-able data, as the store keeps it."""
    data: dict[str, Any] = msgspec.to_builtins(spec)
    return data


def from_stored(type_: type[T], data: Mapping[str, Any]) -> T:
    """A spec read back from the store; fields this version does not know are ignored.

    Raises SpecError when what is left does not fit.
    """
    known = without_unknown(type_, data)
    for problem in problems(type_, known):
        raise SpecError(f"stored {type_.__name__}: {problem}")
    return msgspec.convert(known, type_)
