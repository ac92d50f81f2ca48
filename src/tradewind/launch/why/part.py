"""What objects of a cluster are made of, and the quick way to read small dumps of them.

A dump of one job is read within a few milliseconds, less than msgspec takes to be imported. What is not exactly as it
should be is declined and left to `typed`, which reads everything and says what is wrong; so is a large dump.
"""

import math

from tradewind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, TypeVar

    P = TypeVar("P", bound="Part")
    Read = Callable[[Any], Any]

EMPTY: "dict[str, Any]" = {}
"""The default of fields that are mappings; nobody changes it."""
_INT_RANGE = range(-(2**63), 2**63)


class Part(Record):
    """A piece of an object; absent and null fields have their defaults, and fields that are not named are passed over."""

    if TYPE_CHECKING:
        wire_: ClassVar[dict[str, str]]
        """Field -> its name in JSON, where that is not the same in camel case: a keyword of its class."""

    def __init_subclass__(cls, **wire: str) -> None:
        super().__init_subclass__()
        cls.wire_ = wire


class NotPlain(Exception):
    """msgspec shall read it."""


def part(kind: "type[P]", raw: "Any") -> "P":
    """A piece from decoded JSON; raises NotPlain where a field has not the type it should have."""
    if type(raw) is not dict:
        raise NotPlain
    known = readers(kind)
    made = object.__new__(kind)
    values = made.__dict__
    for key, value in raw.items():
        if value is not None and key in known:
            name, read = known[key]
            values[name] = read(value)
    return made


def wire_name(kind: "type[Part]", name: str) -> str:
    """The name of a field in JSON."""
    head, *tail = name.split("_")
    return kind.wire_.get(name) or head + "".join(word.capitalize() for word in tail)


def readers(kind: "type[Part]") -> "dict[str, tuple[str, Read]]":
    """Name in JSON -> field and how it is read; made when the first piece of this kind is met."""
    found: dict[str, tuple[str, Read]] | None = kind.__dict__.get("readers_")
    if found is None:
        types = annotations(kind)
        found = {wire_name(kind, name): (name, reader(types[name])) for name in kind.fields_}
        type.__setattr__(kind, "readers_", found)
    return found


def annotations(kind: "type[Part]") -> "dict[str, Any]":
    """Field -> its type."""
    return {
        name: type_
        for base in reversed(kind.__mro__)
        for name, type_ in vars(base).get("__annotations__", {}).items()
    }


def reader(type_: "Any") -> "Read":
    """How a value of this type is read."""
    arguments: tuple[Any, ...] = getattr(type_, "__args__", ())
    if isinstance(type_, type) and issubclass(type_, Part):
        return lambda raw: part(type_, raw)
    if getattr(type_, "__origin__", None) is tuple:
        return sequence(reader(arguments[0]))
    if getattr(type_, "__origin__", None) is dict:
        return mapping(reader(arguments[1]))
    if arguments:
        some = [each for each in arguments if each is not type(None)]
        return reader(some[0]) if len(some) == 1 else amount
    return _LEAVES[type_]


def sequence(read: "Read") -> "Read":
    def read_all(raw: "Any") -> "Any":
        if type(raw) is not list:
            raise NotPlain
        return tuple([read(value) for value in raw if value is not None])

    return read_all


def mapping(read: "Read") -> "Read":
    def read_all(raw: "Any") -> "Any":
        if type(raw) is not dict:
            raise NotPlain
        return {key: read(value) for key, value in raw.items() if value is not None}

    return read_all


def amount(raw: "Any") -> "Any":
    """A quantity: text or a number."""
    if type(raw) is float and math.isfinite(raw):
        return raw
    return raw if type(raw) is str else whole(raw)


def whole(raw: "Any") -> "Any":
    if type(raw) is not int or raw not in _INT_RANGE:
        raise NotPlain
    return raw


def text(raw: "Any") -> "Any":
    if type(raw) is not str:
        raise NotPlain
    return raw


def truth(raw: "Any") -> "Any":
    if type(raw) is not bool:
        raise NotPlain
    return raw


_LEAVES: "dict[Any, Read]" = {str: text, int: whole, bool: truth}
