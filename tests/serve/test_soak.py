"""Under steady load, with its workers killed and its version swapped, a server loses nothing that had budget left."""

import dataclasses

import pytest

from bench.soak import MINUTE, soak

SHORT = dataclasses.replace(MINUTE, seconds=10.0, kill_s=3.0, swap_s=4.0, round_s=5.0)


@pytest.mark.slow
def test_no_request_that_had_budget_left_fails_while_workers_die_and_the_version_is_swapped(
    tmp_path, monkeypatch
):
    """Load at 0.8 of capacity, until both have happened; `make soak ARGS=--minute` is the same for a minute.

    Each request has 30 s, so that a slow machine makes none fail: what it cannot do in that time is refused or late.
    """
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path))
    outcome = soak(SHORT, tmp_path)
    assert outcome.failed_with_budget == 0, outcome
    assert outcome.killed >= 1
    assert outcome.swapped >= 1
    assert outcome.requests > outcome.refused
