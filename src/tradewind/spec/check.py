"""Compare plain data with the type it should have, and say exactly where it differs."""

import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tradewind.spec.secret import masked


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong, and where: a dotted path such as `resources.gpus`."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


def problems(type_: Any, value: Any, path: str = "") -> Iterator[Problem]:
    """Every field of `value` that is unknown, missing or ill-typed against `type_`."""
    type_ = _concrete(type_, value)
    origin = typing.get_origin(type_)
    if _is_struct(type_) and isinstance(value, Mapping):
        yield from _struct_problems(type_, value, path)
    elif origin is dict and isinstance(value, Mapping):
        key_type, value_type = typing.get_args(type_)
        for key, item in value.items():
            yield from problems(key_type, key, _join(path, key))
            yield from problems(value_type, item, _join(path, key))
    elif origin is tuple and isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from problems(typing.get_args(type_)[0], item, f"{path}[{index}]")
    else:
        yield from _leaf_problems(type_, value, path)


def without_unknown(type_: Any, value: Any) -> Any:
    """`value` without the fields that `type_` does not have, at every depth."""
    type_ = _concrete(type_, value)
    if not (_is_struct(type_) and isinstance(value, Mapping)):
        return value
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(type_)}
    return {key: without_unknown(fields[key], item) for key, item in value.items() if key in fields}


def nearest(name: str, valid: typing.Iterable[str]) -> str:
    """`; did you mean `gpus`?` when a valid name is near, else the list of valid names."""
    import difflib  # only who made a mistake pays for it

    names = sorted(valid)
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"valid names: {', '.join(names)}" if names else "there are none"


def _struct_problems(type_: Any, value: Mapping[Any, Any], path: str) -> Iterator[Problem]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(type_)}
    for key, item in value.items():
        if key not in fields:
            yield Problem(_join(path, key), f"unknown field; {nearest(str(key), fields)}")
        else:
            yield from problems(fields[key].type, item, _join(path, key))
    for name, field in fields.items():
        if field.required and name not in value:
            yield Problem(_join(path, name), "this field is required")


def _leaf_problems(type_: Any, value: Any, path: str) -> Iterator[Problem]:
    try:
        msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        text = str(error).replace("Expected", "expected", 1)
        yield Problem(path, masked(f"{text}: {value!r}") if isinstance(value, str | int | float) else text)


def _concrete(type_: Any, value: Any) -> Any:
    """The member of `X | None` that is not None, unless the value is None."""
    if value is None or typing.get_origin(type_) not in (types.UnionType, typing.Union):
        return type_
    members = [member for member in typing.get_args(type_) if member is not types.NoneType]
    return members[0] if len(members) == 1 else type_


def _is_struct(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)
