"""Published versions: immutable folders, one row each in the store, and aliases that move through a gate."""

import pathlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from tradewind.errors import GateError, NotFoundError, SpecError
from tradewind.models.gate import Gate, Verdict, judge
from tradewind.models.manifest import Manifest, read, seal
from tradewind.models.package import Package, open_package
from tradewind.models.write import place

if TYPE_CHECKING:
    from tradewind.store import ModelVersion, Store

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}", re.ASCII)


class RefusedError(GateError):
    """The gate said no; `verdicts` holds its figures."""

    def __init__(self, message: str, verdicts: "list[Verdict]") -> None:
        super().__init__(message)
        self.verdicts = verdicts


def publish(store: "Store", package_dir: pathlib.Path | str, name: str) -> "ModelVersion":
    """Copy the package into the registry as the next version of `name`.

    The bytes that are copied are the bytes that were verified. Publishing the same package again gives the
    version that it already has.
    """
    check_name(name)
    manifest, contents = read(pathlib.Path(package_dir))
    for version in store.model_versions(name):
        if version.digest == manifest.digest:
            return version
    folder = _place(manifest, contents, name)
    return store.add_model_version(name, manifest.digest, str(folder), msgspec.json.decode(seal(manifest)[1]))


def resolve(store: "Store", ref: str) -> Package:
    """The verified package of `name@3`, `name@alias` or `name` (the newest).

    Raises NotFoundError for an unknown reference, IntegrityError when the folder is not what was published.
    """
    version = store.model_version(ref)
    return open_package(version.path, digest=version.digest)


def promote(
    store: "Store",
    name: str,
    version: int,
    alias: str,
    *,
    gate: Gate | None = None,
    force: bool = False,
    actor: str = "",
) -> list[Verdict]:
    """Move `name@alias` to `version` when the gate allows it; the verdicts say why.

    The first version of an alias has nothing to be compared with, and passes. Raises GateError otherwise.
    """
    check_name(alias)
    if alias.isdigit():
        raise SpecError(f"alias {alias!r} would read as a version; choose a word, such as production")
    candidate = resolve(store, f"{name}@{version}")
    try:
        current = store.model_version(f"{name}@{alias}")
    except NotFoundError:
        store.set_alias(name, alias, version, why="first version of this alias", actor=actor)
        return []
    if force:
        store.set_alias(name, alias, version, why="forced", actor=actor)
        return []
    verdicts = judge(candidate, resolve(store, f"{name}@{current.version}"), gate or Gate())
    if not all(v.passed for v in verdicts):
        failed = "; ".join(v.text() for v in verdicts if not v.passed)
        raise RefusedError(
            f"{name}@{version} may be worse than {name}@{current.version} ({alias}): {failed}; "
            "--force promotes it all the same",
            verdicts,
        )
    why = f"against {name}@{current.version}: " + "; ".join(v.text() for v in verdicts)
    store.set_alias(name, alias, version, why=why, actor=actor)
    return verdicts


def check_name(name: str) -> None:
    """Raise SpecError unless `name` can stand in a URL, a path and `name@alias`."""
    if not _NAME.fullmatch(name):
        raise SpecError(
            f"{name!r} is not a name: lower case letters, digits, '.', '_' and '-', as in recommender"
        )


def _place(manifest: Manifest, contents: Mapping[str, bytearray], name: str) -> pathlib.Path:
    """The registry's own read-only copy of the package, in a folder named by its digest."""
    from tradewind.store import home

    folder = home() / "models" / name / manifest.digest.removeprefix("sha256:")
    try:
        place(folder, contents, seal(manifest)[1], read_only=True)
    except OSError:
        # Another process published the same bytes, or one died before its row was written.
        if not folder.is_dir():
            raise
        open_package(folder, digest=manifest.digest)
    return folder
