"""Commands about models: publish, models, promote."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradewind.cli.flags import OutputFlag
from tradewind.cli.output import emit
from tradewind.errors import SpecError
from tradewind.names import ExitCode

if TYPE_CHECKING:
    from tradewind.store import Alias, ModelVersion, Store


_COLUMNS = ("model", "aliases", "created", "task", "metrics", "run")
_DEFAULT_MARGIN = 0.002


def publish(package: Path, *, name: str | None = None, output: OutputFlag = "table") -> int:
    """Publish a packaged model as an immutable version NAME@N.

    Parameters
    ----------
    package
        Folder that `tradewind.models.write_package` wrote.
    name
        Name of the model; the package's own name by default.
    output
        `table` for people, `json` for programs.
    """
    from tradewind import models
    from tradewind.store import open_store

    name = name or models.open_package(package).manifest.name
    with open_store() as store:
        version = models.publish(store, package, name)
        row = _row(version, store.aliases(name))
        emit(row if output == "json" else _readable(row), output, (*_COLUMNS, "digest", "path"))
    return ExitCode.OK


def models(name: str | None = None, *, output: OutputFlag = "table") -> int:
    """List model versions and their aliases.

    Parameters
    ----------
    name
        Only the versions of this model.
    output
        `table` for people, `json` for programs.
    """
    from tradewind.store import open_store

    with open_store() as store:
        rows = _rows(store, name)
        emit(rows if output == "json" else [_readable(row) for row in rows], output, _COLUMNS)
    return ExitCode.OK


def promote(
    model: str,
    *,
    alias: str = "production",
    metric: tuple[str, ...] = (),
    margin: float = _DEFAULT_MARGIN,
    force: bool = False,
    output: OutputFlag = "table",
) -> int:
    """Move an alias to a version, if its offline gate agrees.

    The version must not be worse than the one the alias points to, on any metric, by more than the margin: the
    lower end of a paired bootstrap interval over users decides.

    Parameters
    ----------
    model
        The version, NAME@N (or NAME@ALIAS).
    alias
        The alias to move.
    metric
        Metric that is compared; may be repeated. All that production was evaluated on by default.
    margin
        How much worse a metric may be, in its own unit.
    force
        Move it without asking the gate.
    output
        `table` for people, `json` for programs.
    """
    from tradewind.models.gate import Gate
    from tradewind.models.registry import RefusedError
    from tradewind.models.registry import promote as move
    from tradewind.store import open_store

    if "@" not in model:
        raise SpecError(f"{model!r} does not say which version; write {model}@1, for example")
    gate = Gate(metrics=dict.fromkeys(metric, margin), margin=margin)
    with open_store() as store:
        version = store.model_version(model)
        try:
            verdicts = move(
                store, version.name, version.version, alias, gate=gate, force=force, actor=_actor()
            )
        except RefusedError as refused:
            if output == "json":
                emit(
                    {"model": version.ref, "alias": alias, "promoted": False, "verdicts": refused.verdicts},
                    output,
                )
            raise
        why = store.alias_history(version.name, alias)[-1].why
    emit(
        {"model": version.ref, "alias": alias, "promoted": True, "why": why, "verdicts": verdicts},
        output,
        ("model", "alias", "promoted", "why"),
    )
    return ExitCode.OK


def _rows(store: "Store", name: str | None) -> list[dict[str, Any]]:
    aliases = store.aliases(name)
    versions = store.model_versions(name)
    if name is not None and not versions:
        store.model_version(name)  # raises the error that lists what there is
    return [_row(version, aliases) for version in versions]


def _row(version: "ModelVersion", aliases: "list[Alias]") -> dict[str, Any]:
    manifest = version.manifest
    pointing = sorted(a.alias for a in aliases if (a.name, a.version) == (version.name, version.version))
    return {
        "model": version.ref,
        "name": version.name,
        "version": version.version,
        "aliases": pointing,
        "created": datetime.fromtimestamp(version.created_s, UTC).isoformat(timespec="seconds"),
        "created_s": version.created_s,
        "task": manifest.get("task"),
        "metrics": manifest.get("metrics", {}),
        "run": manifest.get("lineage", {}).get("run"),
        "digest": version.digest,
        "path": version.path,
    }


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    """The same row with its lists and tables as a person reads them."""
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in row["metrics"].items())
    return row | {"aliases": ", ".join(row["aliases"]), "metrics": metrics}


def _actor() -> str:
    return os.environ.get("USER") or f"uid {os.getuid()}"
