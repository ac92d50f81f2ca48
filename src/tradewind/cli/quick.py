"""Read a well-formed command line by a command's own signature, and decline every other.

Cyclopts reads any command line, says what is wrong with it and prints help; it takes longer to import than a start
may take. Nothing is decided here twice: a command line that is not plain is Cyclopts' to read (`tradewind.cli.grammar`),
and a test holds that what is read here is read alike there. Annotations are compared as they are written, which is
why the modules of such commands begin with `from __future__ import annotations`.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Bound = tuple[list[str], dict[str, Any]]

SPELLINGS = {
    "OutputFlag": ("--output", "-o"),
    "FollowFlag": ("--follow", "-f"),
    "FromFlag": ("--from",),
    "NamespaceFlag": ("--namespace", "-n"),
    "TargetFlag": ("--target", "-t"),
}
"""Annotation -> how such a flag is written, where that is not its name with dashes."""
OUTPUTS = ("table", "json")
_SWITCHES = ("bool", "FollowFlag")
_TEXTS = ("str", "str | None", "FromFlag", "NamespaceFlag", "TargetFlag")
_NUMBERS = ("int", "int | None")
_VARIADIC = 0x04
_HELP = {"--help", "-h", "--version"}


class NotPlain(Exception):
    """Cyclopts shall read it."""


def bind(function: "Callable[..., Any]", tokens: "list[str]") -> "Bound | None":
    """Positional and keyword arguments of `function` that the command line gives; None where that is not plain."""
    try:
        return _bound(function, tokens)
    except NotPlain:
        return None


def _bound(function: "Callable[..., Any]", tokens: "list[str]") -> "Bound":
    code, types = function.__code__, function.__annotations__
    flags = {spelling: name for name in keywords(function) for spelling in spellings(name, types[name])}
    given: dict[str, Any] = {}
    plain: list[str] = []
    rest = iter(tokens)
    for token in rest:
        if token in _HELP:
            raise NotPlain
        if token == "--":
            plain += passed(rest)
        elif token in flags:
            name = flags[token]
            if name in given:
                raise NotPlain
            given[name] = value(types[name], rest)
        else:
            plain.append(text(token))
    check_positionals(function, len(plain))
    if not given.keys() >= set(keywords(function)) - (function.__kwdefaults__ or {}).keys():
        raise NotPlain
    if any(types[name] not in ("str", "Passed") for name in code.co_varnames[: code.co_argcount]):
        raise NotPlain
    return plain, given


def keywords(function: "Callable[..., Any]") -> "tuple[str, ...]":
    """The names of the parameters that are flags."""
    code = function.__code__
    names: tuple[str, ...] = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    return names


def spellings(name: str, type_: object) -> "tuple[str, ...]":
    """How a flag is written; nothing where its annotation is none that is read here."""
    if not isinstance(type_, str) or type_ not in (*_SWITCHES, *_TEXTS, *_NUMBERS, *SPELLINGS):
        return ()
    return SPELLINGS.get(type_) or (f"--{name.replace('_', '-')}",)


def check_positionals(function: "Callable[..., Any]", given: int) -> None:
    """As many as there must be."""
    code = function.__code__
    if function.__defaults__ or given < code.co_argcount:
        raise NotPlain
    if given > code.co_argcount and not code.co_flags & _VARIADIC:
        raise NotPlain


def passed(rest: "Iterator[str]") -> "Iterator[str]":
    """What comes after `--`, as it is."""
    for token in rest:
        if token in _HELP or not token:
            raise NotPlain
        yield token


def value(type_: str, rest: "Iterator[str]") -> "str | int | bool":
    """What the flag of this annotation is set to."""
    if type_ in _SWITCHES:
        return True
    token = next(rest, "")
    if type_ == "FromFlag" and token == "-":
        return token
    token = text(token)
    if type_ in _NUMBERS:
        if not (token.isascii() and token.isdigit() and len(token) < 10 and token[0] != "0"):
            raise NotPlain
        return int(token)
    if type_ == "OutputFlag" and token not in OUTPUTS:
        raise NotPlain
    return token


def text(token: str) -> str:
    """A token that means itself."""
    if not token or token.startswith("-") or token.lower() in ("none", "null"):
        raise NotPlain
    return token
