"""Command lines as Cyclopts reads them: help, errors, and whatever is not plain."""

import sys
import types
import typing
from collections.abc import Callable
from typing import Any

from cyclopts import App, CycloptsError
from cyclopts.help import PlainFormatter

from tradewind import __version__
from tradewind.cli import flags
from tradewind.names import ExitCode


def call(name: str, command: Callable[..., Any], tokens: list[str]) -> Any:
    """Call a command as the command line asks for; what it returns, or the exit code of a usage error."""
    try:
        return build_app(name, command)([name, *tokens])
    except CycloptsError as error:
        print(f"tradewind: {error}", file=sys.stderr)
        print("Try: tradewind --help", file=sys.stderr)
        return ExitCode.USAGE


def build_app(name: str, command: Callable[..., Any]) -> App:
    """The command line with the one command that was typed."""
    app = App(
        name="tradewind",
        help="Train, keep alive, package, serve and explain PyTorch models.",
        help_formatter=PlainFormatter(),
        version=__version__,
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
    )
    app.command(resolved(command), name=name)
    return app


def resolved(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, its annotations as types: those of `tradewind.cli.flags` are only named in its module."""
    assert isinstance(command, types.FunctionType)
    hints = typing.get_type_hints(command, localns=vars(flags), include_extras=True)
    copy = types.FunctionType(
        command.__code__, command.__globals__, command.__name__, command.__defaults__, command.__closure__
    )
    copy.__kwdefaults__, copy.__doc__, copy.__module__ = (
        command.__kwdefaults__,
        command.__doc__,
        command.__module__,
    )
    copy.__annotations__ = hints
    return copy
