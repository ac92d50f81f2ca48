import pathlib

import pytest

from recipes.recommender.demo_summary import ledger_of
from tradewind.store import Attempt, Event, Run, open_store


def test_the_ledger_ends_with_the_run(tmp_path: pathlib.Path):
    """What is noted in a run after its end, such as load on what it made, is none of its time."""
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        store.add_run(Run(id="r", name="r", created_s=100.0))
        store.add_attempt(
            Attempt(run="r", index=0, state="succeeded", started_s=101.0, ended_s=160.0, exit_code=0)
        )
        store.update_run("r", state="succeeded", ended_s=160.0)
        store.add_events([Event(run="r", attempt=0, rank=None, t_s=500.0, kind="load", data={})])
        assert sum(ledger_of(store, "r").values()) == pytest.approx(60.0)
