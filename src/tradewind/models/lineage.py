"""Where a model comes from: the run and its code, the data, the settings, the model it was made from."""

import os
from collections.abc import Mapping
from typing import Any

from tradewind.names import ENV_ATTEMPT, ENV_RUN


def lineage(
    *, data: Mapping[str, Any], config: Mapping[str, Any], parent: str | None = None
) -> dict[str, Any]:
    """The lineage to write into a package: data fingerprint, configuration, and the parent's `name@N` or None.

    Under `tradewind run` it also holds the run's id, the attempt, and the digest of the code snapshot.
    """
    found: dict[str, Any] = {"data": dict(data), "config": dict(config), "parent": parent}
    run = os.environ.get(ENV_RUN)
    if run:
        found |= {"run": run, "attempt": int(os.environ.get(ENV_ATTEMPT, "0")), "code": _snapshot(run)}
    return found


def _snapshot(run: str) -> str | None:
    from tradewind.store import open_store

    with open_store() as store:
        return store.run(run).snapshot
