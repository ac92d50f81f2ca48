"""A struct whose import costs nothing, for what a command needs within its first milliseconds."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, TypeVar, dataclass_transform

    R = TypeVar("R", bound="Record")
else:

    def dataclass_transform(**_):
        return lambda cls: cls


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """A frozen, keyword-only struct, as `msgspec.Struct` is: its fields are the annotations of its class.

    Defaults are shared and must not be changed. What an instance was not given is looked up in its class.
    """

    if TYPE_CHECKING:
        fields_: ClassVar[tuple[str, ...]]
    else:
        fields_ = ()

    def __init_subclass__(cls) -> None:
        own = [name for name in cls.__dict__.get("__annotations__", ()) if name not in cls.fields_]  # noqa: RUF063
        cls.fields_ = (*cls.fields_, *own)

    def __init__(self, **given: "Any") -> None:
        """Raises TypeError for a field that is missing or unknown."""
        cls = type(self)
        for name in cls.fields_:
            if name not in given and not hasattr(cls, name):
                raise TypeError(f"{cls.__name__} lacks {name}")
        for name in given:
            if name not in cls.fields_:
                raise TypeError(f"{cls.__name__} has no {name}")
        self.__dict__.update(given)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set: make another with replace()")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)) and not isinstance(self, type(other)):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.fields_)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.fields_))

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.fields_)
        return f"{type(self).__name__}({inner})"


def replace(record: "R", **changes: "Any") -> "R":
    """A copy with other values in some fields."""
    return type(record)(**{name: getattr(record, name) for name in record.fields_} | changes)


def as_dict(record: Record) -> "dict[str, Any]":
    """Its fields in order, as plain JSON-able data, down to every record inside.

    Raises NotImplementedError for what is no record, as msgspec expects it of an `enc_hook`.
    """
    if not isinstance(record, Record):
        raise NotImplementedError(f"{type(record).__name__} has no plain form")
    return {name: _plain(getattr(record, name)) for name in record.fields_}


def _plain(value: "Any") -> "Any":
    if isinstance(value, Record):
        return as_dict(value)
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value
