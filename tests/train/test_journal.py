"""The journal's lines are whole JSON."""

import json
import math
import os
from pathlib import Path

import pytest

from tradewind import names
from tradewind.train.journal import Journal


def test_an_entry_is_one_write_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entry is a single write, so a kill cannot tear it, and reads back as JSON with a time."""
    writes = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: (writes.append(data), write(fd, data))[1])
    journal = Journal(tmp_path / "deep" / "journal.jsonl")
    journal.write("metric", step=3, name="loss", value=math.nan, path=Path("/x"))
    journal.write("end", step=3)
    lines = (tmp_path / "deep" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    assert lines == writes
    entry = json.loads(lines[0], parse_constant=pytest.fail)
    assert entry.pop("t") > 1.7e9
    assert entry == {"kind": "metric", "step": 3, "name": "loss", "value": "nan", "path": "/x"}
    assert math.isnan(float(entry["value"]))


def test_without_a_file_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside Tradewind there is no journal and no error."""
    monkeypatch.delenv(names.ENV_JOURNAL, raising=False)
    written: list[bytes] = []
    monkeypatch.setattr(os, "write", lambda _, data: written.append(data))
    Journal.from_environment().write("end", step=1)
    assert written == []
