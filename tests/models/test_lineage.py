"""Lineage: a package says which code, data and settings it came from."""

import pathlib

import pytest

from tradewind.models.lineage import lineage
from tradewind.store import Run, open_store


def test_outside_a_run_it_holds_data_config_and_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script under plain python has no run to name."""
    monkeypatch.delenv("TRADEWIND_RUN", raising=False)
    found = lineage(data={"fingerprint": "sha256:0"}, config={"seed": 1}, parent="small@3")
    assert found == {"data": {"fingerprint": "sha256:0"}, "config": {"seed": 1}, "parent": "small@3"}


def test_inside_a_run_it_names_the_run_and_its_code(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code snapshot is the one the run was started from."""
    monkeypatch.setenv("TRADEWIND_STORE", f"sqlite:///{tmp_path / 'store.db'}")
    monkeypatch.setenv("TRADEWIND_RUN", "abc")
    monkeypatch.setenv("TRADEWIND_ATTEMPT", "2")
    with open_store() as store:
        store.add_run(Run(id="abc", name="train", created_s=0.0, snapshot="sha256:1"))
    found = lineage(data={}, config={})
    assert (found["run"], found["attempt"], found["code"]) == ("abc", 2, "sha256:1")
