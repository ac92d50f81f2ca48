"""Whether what every request goes through runs compiled (`setup.py`), and from the sources that lie beside it."""

import hashlib
import importlib.util
import pathlib

import msgspec

from tradewind.errors import IntegrityError

RECORD = "compiled.json"
_SUFFIX = ".so"


def is_compiled(module: str = "tradewind.serve.dispatch") -> bool:
    """Whether a module is an extension."""
    spec = importlib.util.find_spec(module)
    return spec is not None and (spec.origin or "").endswith(_SUFFIX)


def check(folder: pathlib.Path = pathlib.Path(__file__).parent) -> None:
    """Raise IntegrityError naming a module that was compiled from other sources: it would run in their place."""
    extensions = [path for path in folder.rglob(f"*{_SUFFIX}") if path.name.count(".") > 1]
    if not extensions:
        return
    record = folder / RECORD
    digests = msgspec.json.decode(record.read_bytes(), type=dict[str, str]) if record.is_file() else {}
    for path in extensions:
        source = path.with_name(path.name.partition(".")[0] + ".py")
        name = source.relative_to(folder).as_posix()
        if hashlib.sha256(source.read_bytes()).hexdigest() != digests.get(name):
            raise IntegrityError(
                f"{path.name} was not compiled from {source}: run `make setup`, or `make uncompile`"
            )
