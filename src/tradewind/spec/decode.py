"""From YAML to a spec; what is wrong is named by file, line, path and nearest valid name."""

import pathlib
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from tradewind.errors import SpecError
from tradewind.spec.check import Problem, problems
from tradewind.spec.secret import masked

T = TypeVar("T")


def load_yaml(path: str | pathlib.Path, type_: type[T], given: Mapping[str, Any] | None = None) -> T:
    """The spec in a YAML file; raises SpecError naming the file, the path in it and the remedy.

    What is `given` counts before the file, which may then leave it out.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from None
    return _decode_text(type_, text, str(path), given or {})


def decode(type_: type[T], source: str | pathlib.Path) -> T:
    """The spec in `source`: YAML text when it is a string, the file's content when it is a Path."""
    if isinstance(source, pathlib.Path):
        return load_yaml(source, type_)
    return _decode_text(type_, source, "<text>", {})


def _decode_text(type_: type[T], text: str, name: str, given: Mapping[str, Any]) -> T:
    import yaml  # only who reads YAML pays for it

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        repeated = _repeated(node)
        data = yaml.safe_load(text)
    except RecursionError:
        raise SpecError(f"{name}: nested too deeply, or an alias inside its own anchor") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"{name}: not valid YAML: {masked(' '.join(str(error).split()))}") from None
    data = {} if data is None else data
    if isinstance(data, dict):
        data = {**data, **given}
    found = [*repeated, *problems(type_, data)]
    if found:
        lines = [f"{name}:{_line(node, problem.path)}: {problem}" for problem in found]
        raise SpecError("\n".join(lines))
    return msgspec.convert(data, type_)


def _repeated(node: Any, path: str = "") -> list[Problem]:
    """Keys written twice in one mapping, of which YAML would silently keep the last."""
    if not _is_mapping(node):
        return []
    found, seen = [], set()
    for key, value in node.value:
        here = f"{path}.{key.value}" if path else str(key.value)
        if here in seen:
            found.append(Problem(here, "this field is written twice; keep one"))
        seen.add(here)
        found += _repeated(value, here)
    return found


def _line(node: Any, path: str) -> int:
    """Line of the deepest key on `path` that the document has; the first line when it has none."""
    line = 1 if node is None else node.start_mark.line + 1
    while _is_mapping(node):
        for key, value in reversed(node.value):
            name = str(key.value)
            if path == name or path.startswith((f"{name}.", f"{name}[")):
                line, node, path = key.start_mark.line + 1, value, path[len(name) :].lstrip(".")
                break
        else:
            return line
    return line


def _is_mapping(node: Any) -> bool:
    return node is not None and node.id == "mapping"
