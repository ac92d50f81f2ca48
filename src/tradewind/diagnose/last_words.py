"""What a worker said last: the exception that ended it, out of its log or out of torch's error file."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

TAIL_BYTES = 64 * 1024
TAIL_LINES = 40
_MORE_LINES = 8
_ORIGINAL_LINES = 24
_TRACEBACK = "Traceback (most recent call last):"
_GROUP = re.compile(r"\s*\+ Exception Group Traceback \(most recent call last\):$")
_HEADER = re.compile(r"(^|\S)(\[rank\d+\]: )?Traceback \(most recent call last\):$")
"""Alone on its line, or after a progress bar that was still open; not `Original Traceback ...` of a message."""
_EXCEPTION = re.compile(r"(?:\s*\| )?([A-Za-z_][\w.<>]*(: .*)?)$")
_RANK = re.compile(r"^\[rank\d+\]: ?(?!\[)")
_RECORD = re.compile(r"^(\[rank\d+\]:)?\[?[EWIF]\d{3,4} |^\S+:\d+: \w*Warning: ")
"""A line of torch's own log, or a warning."""
_CHAINED = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
_HARMLESS = ("Exception ignored", "Error in atexit", "Error in sys.excepthook", "--- Logging error ---")
"""What Python only reports, mostly while it takes things down."""
_SYNTAX = ("SyntaxError:", "IndentationError:", "TabError:")
_TERMINATE = re.compile(r"terminate called after throwing an instance of '(.+)'$")


class LastWords(msgspec.Struct, frozen=True):
    """`exception` is one line, `Type: message`, or nothing; `text` is its traceback, or the end of the log."""

    text: str = ""
    exception: str = ""
    raised_s: float | None = None
    """When it was raised at the latest, if that was recorded."""


def from_log(log: Path) -> LastWords:
    """The last traceback of a log and its exception, or the last lines."""
    raw = tail(log)
    lines = [_TRACEBACK if _HEADER.search(line) else _RANK.sub("", line) for line in raw]
    starts = [i for i, line in enumerate(lines) if line == _TRACEBACK or _GROUP.match(line)]
    for start in sorted(starts, key=lambda i: (weight(before(lines, i)), i), reverse=True):
        if weight(before(lines, start)) < 0:
            break
        for i in range(start + 1, len(lines)):
            found = _EXCEPTION.match(lines[i])
            if found:
                rest = continuation(lines, raw, i)
                block = lines[chain_start(lines, starts, start) : i + 1][-(TAIL_LINES - len(rest)) :]
                return LastWords("\n".join([*block, *rest]), found[1])
    return LastWords("\n".join(lines[-TAIL_LINES:]), syntax_error(lines))


def from_crash(log: Path) -> LastWords:
    """The end of the log of a process that ended by a signal, with the C++ exception that caused it, if any.

    A traceback further up was handled: it is not why the process ended.
    """
    lines = tail(log)
    exception = ""
    for i, line in enumerate(lines):
        found = _TERMINATE.match(line)
        if found:
            what = lines[i + 1].partition("what():")[2].strip() if i + 1 < len(lines) else ""
            exception = f"{found[1]}: {what}" if what else found[1]
    return LastWords("\n".join(lines[-TAIL_LINES:]), exception)


def before(lines: Sequence[str], i: int) -> str:
    """The last line before `i` that is not blank."""
    return next((line for line in reversed(lines[:i]) if line.strip()), "")


def weight(lead: str) -> int:
    """How much a traceback after the line `lead` counts: a thread's less, a harmless one's nothing."""
    if lead.startswith(_HARMLESS):
        return -1
    return 0 if lead.startswith("Exception in thread") else 1


def chain_start(lines: Sequence[str], starts: Sequence[int], start: int) -> int:
    """Where the chain of exceptions begins that ends with the traceback at `start`."""
    while before(lines, start) in _CHAINED:
        earlier = [i for i in starts if i < start]
        if not earlier:
            return start
        start = earlier[-1]
    return start


def continuation(lines: Sequence[str], raw: Sequence[str], i: int) -> list[str]:
    """The further lines of a message that begins at `i`; where it ends is told by what cannot belong to it."""
    ranked = _RANK.match(raw[i]) is not None
    found: list[str] = []
    limit = _MORE_LINES
    for j in range(i + 1, len(lines)):
        other = ranked and _RANK.match(raw[j]) is None
        if other or not lines[j].strip() or lines[j] == _TRACEBACK or _RECORD.match(raw[j]):
            break
        if lines[j].startswith(_HARMLESS) or len(found) == limit:
            break
        limit = _ORIGINAL_LINES if lines[j].startswith("Original Traceback") else limit
        found.append(lines[j])
    return found


def syntax_error(lines: Sequence[str]) -> str:
    """The error of a script that could not be compiled: it has no traceback."""
    return next((line for line in reversed(lines) if line.startswith(_SYNTAX)), "")


def tail(log: Path) -> list[str]:
    """The last lines of a log, without reading all of it; a carriage return ends a line too."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read()
    except FileNotFoundError:
        return []
    return data.decode(errors="replace").splitlines()


def from_error_file(path: Path) -> LastWords | None:
    """What torch.distributed.elastic's `@record` wrote; None when it is not there or not whole."""
    try:
        body: Any = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    message = body.get("message") if isinstance(body, dict) else None
    if isinstance(message, str):
        message = {"message": message}
    if not isinstance(message, dict):
        return None
    extra = message.get("extraInfo") or {}
    said = str(message.get("message", ""))
    text = str(extra.get("py_callstack") or said).splitlines()[-TAIL_LINES:]
    return LastWords("\n".join(text), said.partition("\n")[0], latest(extra.get("timestamp")))


def latest(stamp: object) -> float | None:
    """The latest instant that a recorded time can mean: whole seconds were cut off."""
    try:
        seconds = float(str(stamp))
    except ValueError:
        return None
    return seconds + 1.0 if seconds.is_integer() else seconds
