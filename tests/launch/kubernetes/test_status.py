"""What `ps` and `show` tell the store of runs on a cluster."""

from pathlib import Path
from typing import Any

import pytest

from tradewind.launch.kubernetes.status import keep
from tradewind.store import Run, Store, open_store

PENDING = {"metadata": {"name": "train"}, "spec": {"suspend": False}, "status": {"active": 2}}
AT_WORK = {
    "metadata": {"name": "train-0"},
    "status": {"phase": "Running", "startTime": "2026-01-01T00:00:05Z"},
}


class Counted:
    """A store whose updates are counted."""

    def __init__(self, store: Store) -> None:
        self._store, self.updates = store, 0

    def update_run(self, id: str, **fields: Any) -> Run:
        self.updates += 1
        return self._store.update_run(id, **fields)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.parametrize(
    ("pods", "state", "updates"),
    [([], "pending", 0), ([AT_WORK], "running", 1), ([AT_WORK] * 2, "running", 1)],
)
def test_only_news_is_written(home: Path, pods: list[Any], state: str, updates: int) -> None:
    """Two hundred runs that wait cost a store no writes; a change costs one, however often it is seen."""
    with open_store() as store:
        counted: Any = Counted(store)
        run = store.add_run(Run(id="a" * 12, name="train", created_s=1.0))
        for _ in range(3):
            assert keep(run, PENDING, pods, counted).state == state
        assert counted.updates == updates
