"""Models named as `file.py:Class`; no torch, no numpy: the front process asks."""

import pathlib
import re

from tradewind.errors import SpecError

_REFERENCE = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)")


def is_reference(model: str) -> bool:
    """Whether `model` has the form `file.py:Class`."""
    return _REFERENCE.fullmatch(model) is not None


def locate(model: str) -> str:
    """Return the reference with its file's whole path. Raises SpecError where there is no such file."""
    file, name = split(model)
    if not file.is_file():
        raise SpecError(f"{model}: there is no file {file}")
    return f"{file.resolve()}:{name}"


def split(model: str) -> tuple[pathlib.Path, str]:
    """Return the file and the class of a reference."""
    match = _REFERENCE.fullmatch(model)
    if match is None:
        raise SpecError(f"{model}: write it as file.py:Class")
    return pathlib.Path(match["file"]), match["name"]
