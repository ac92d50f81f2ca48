"""Objects of a cluster as msgspec decodes them: as quick for a large cluster as it gets, and exact about what is wrong.

Each kind gets a twin, a msgspec struct with the same fields, from which its records are made. A twin is no subclass of
its kind: instances of that would have a `__dict__`, and msgspec's decoder crashes with such structs now and then.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from tradewind.errors import SpecError
from tradewind.launch.why.kinds import KINDS
from tradewind.launch.why.part import Part, annotations, wire_name
from tradewind.launch.why.pods import Object
from tradewind.record import replace

Make = Callable[[Any], Any]
T = TypeVar("T", bound=Object)
P = TypeVar("P", bound=Part)


class _Listing(msgspec.Struct):
    """A list of objects, not looked into yet."""

    kind: str = ""
    items: list[msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET


class _Head(msgspec.Struct):
    kind: str | None = None


_TWINS: dict[type, Any] = {}
_STEPS: dict[type, list[tuple[str, "Make | None"]]] = {}


def twin(kind: type[Part]) -> Any:
    """The msgspec struct with the fields of a kind."""
    return _TWINS.get(kind) or _TWINS.setdefault(kind, _made(kind))


def record(kind: type[P], told: Any) -> P:
    """The record of what a twin holds."""
    made = object.__new__(kind)
    values = made.__dict__
    for name, make in _STEPS.get(kind) or _STEPS.setdefault(kind, _steps(kind)):
        value = getattr(told, name)
        values[name] = value if make is None or value is None else make(value)
    return made


def _steps(kind: type[Part]) -> list[tuple[str, Make | None]]:
    """Every field, and how its value is made of a twin's where that is not the same."""
    types = annotations(kind)
    return [(name, _maker(types[name])) for name in kind.fields_]


def _maker(type_: Any) -> Make | None:
    arguments: tuple[Any, ...] = getattr(type_, "__args__", ())
    if isinstance(type_, type) and issubclass(type_, Part):
        return lambda value: (
            value if isinstance(value, Part) else record(type_, value)
        )  # A default is a record.
    makers = [make for make in map(_maker, arguments) if make is not None]
    if not makers:
        return None
    (make,) = makers
    if getattr(type_, "__origin__", None) is tuple:
        return lambda value: tuple([make(each) for each in value])
    if getattr(type_, "__origin__", None) is dict:
        return lambda value: {key: make(each) for key, each in value.items()}
    return make


def _made(kind: type[Part]) -> Any:
    types = annotations(kind)
    fields = [
        (name, _twins(types[name]), _field(getattr(kind, name), wire_name(kind, name)))
        for name in kind.fields_
    ]
    return msgspec.defstruct(
        kind.__name__,
        fields,
        frozen=True,
        kw_only=True,
        gc=False,
        module=__name__,
    )


def _field(default: Any, name: str) -> Any:
    if default == {}:
        return msgspec.field(default_factory=dict, name=name)
    return msgspec.field(default=default, name=name)


def _twins(type_: Any) -> Any:
    """The type with twins in the places of kinds."""
    arguments = getattr(type_, "__args__", ())
    if isinstance(type_, type) and issubclass(type_, Part):
        return twin(type_)
    if getattr(type_, "__origin__", None) in (dict, tuple):
        return type_.__origin__[tuple(_twins(each) for each in arguments)]
    return functools.reduce(operator.or_, map(_twins, arguments)) if arguments else type_


def convert(raw: Any, kind: type[P]) -> P:
    """An object from decoded JSON; raises msgspec.ValidationError."""
    return record(kind, msgspec.convert(raw, twin(kind)))


def decode_listing(data: bytes, source: str, hint: str) -> list[Object]:
    """The objects in a `List`; raises SpecError that names the place in it."""
    try:
        listing = msgspec.json.decode(data, type=_Listing)
    except msgspec.ValidationError as error:
        raise SpecError(f"{source}: is no List of objects ({error}); write it with {hint}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(f"{source}: is not JSON ({error}); write it with {hint}") from None
    if listing.items is msgspec.UNSET:
        listing.items = [msgspec.Raw(data)]
    default = listing.kind.removesuffix("List")
    read = (_read(item, default, index, source) for index, item in enumerate(listing.items or ()))
    return [known for known in read if known]


def _read(item: msgspec.Raw, default: str, index: int, source: str) -> Object | None:
    """One object; members of a `PodList` say nothing about their kind, which is then `default`."""
    kind = default
    try:
        kind = msgspec.json.decode(item, type=_Head).kind or default
        return _decode(item, kind, KINDS[kind]) if kind in KINDS else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = str(error).replace("`$", f"`items[{index}]")
        raise SpecError(f"{source}: items[{index}] ({kind or 'no kind'}): {text}") from None


def _decode(item: msgspec.Raw, kind: str, known: type[T]) -> T:
    """Go prints an empty list as null; here that is the same as absent, and seldom needed."""
    try:
        found = record(known, msgspec.json.decode(item, type=twin(known)))
    except msgspec.ValidationError:
        found = convert(_without_nulls(msgspec.json.decode(item)), known)
    return found if found.kind else replace(found, kind=kind)


def decode_list(data: bytes, known: type[T], kind: str) -> list[T]:
    """The objects in the list that an API server answered with; raises msgspec.DecodeError."""
    try:
        told = msgspec.json.decode(data, type=_typed(known)).items or []
        found = [record(known, item) for item in told]
    except msgspec.ValidationError:
        listing = msgspec.json.decode(data, type=_Listing)
        found = [_decode(item, kind, known) for item in listing.items or ()]
    for item in found:  # In place: nobody else has them yet, and copies take as long as reading.
        item.__dict__["kind"] = kind
    return found


def _typed(known: type[Object]) -> Any:
    """A list of objects of one kind."""
    return msgspec.defstruct("Typed", [("items", list[twin(known)] | None, None)])  # type: ignore[misc]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value if inner is not None]
    return value
