"""Reading what workers append: whole lines, once each, whatever is on them."""

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.agent.journal import JournalTail, LineTail, make_folder, parse
from tradewind.train.journal import Journal


@given(
    lines=st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"")), max_size=8), data=st.data()
)
def test_lines_come_whole_and_once_however_they_are_written(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], data: st.DataObject
) -> None:
    """A file written in pieces of any size, read between any two, gives each line once, and the rest at last."""
    path = tmp_path_factory.mktemp("tail") / "file"
    text = b"\n".join(lines)
    tail, read = LineTail(path), []
    assert tail.read() == []
    with path.open("wb", buffering=0) as file:
        while text:
            size = data.draw(st.integers(1, len(text)))
            file.write(text[:size])
            text = text[size:]
            new = tail.read()
            read += new
            assert read == lines[: len(read)]
    read += tail.read(last=True)
    assert read == (lines[:-1] if lines and lines[-1] == b"" else lines)
    assert tail.read(last=True) == []


def test_a_reader_can_begin_further_on(tmp_path: Path) -> None:
    """A tail that is given an offset reads from there."""
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\n")
    assert LineTail(path, offset=4).read() == [b"two"]


def test_what_a_worker_journals_is_read_back(tmp_path: Path) -> None:
    """Entries of the training side's own journal come out as they went in, and only once."""
    path = tmp_path / "journal" / "rank1.jsonl"
    journal, tail = Journal(path), JournalTail(path, 1)
    journal.write("metric", step=3, name="loss", value=math.nan)
    journal.write("ledger", buckets={"compute": 1.5}, wall_s=2.0)
    journal.write("start", rank=1, world=2, pid=7)
    found = tail.read()
    assert [{k: v for k, v in e.items() if k != "t"} for e in found] == [
        {"kind": "metric", "step": 3, "name": "loss", "value": "nan"},
        {"kind": "ledger", "buckets": {"compute": 1.5}, "wall_s": 2.0},
        {"kind": "start", "rank": 1, "world": 2, "pid": 7},
    ]
    assert tail.read() == []
    journal.write("end", step=3)
    assert [e["kind"] for e in tail.read()] == ["end"]


def test_a_line_torn_by_a_kill_waits_for_its_end(tmp_path: Path) -> None:
    """Half a line is not an entry; when another process goes on after it, only the torn line is lost."""
    path = tmp_path / "rank0.jsonl"
    tail = JournalTail(path, 0)
    whole = json.dumps({"t": 1.0, "kind": "step", "step": 1}).encode() + b"\n"
    path.write_bytes(whole + whole[:9])
    assert [e["step"] for e in tail.read()] == [1]
    with path.open("ab") as file:
        file.write(whole + whole)
    assert [e["step"] for e in tail.read()] == [1]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"not json",
        b"7",
        b"null",
        b"[1, 2]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"kind": "step", "step": 1}',
        b'{"t": 1.0, "step": 1}',
        b'{"t": "now", "kind": "end"}',
        b'{"t": NaN, "kind": "end"}',
        b'{"t": 1e999, "kind": "end"}',
        b'{"t": 1.0, "kind": 7}',
        b'{"t": 1.0, "kind": "step"}',
        b'{"t": 1.0, "kind": "step", "step": "one"}',
        b'{"t": 1.0, "kind": "checkpoint", "step": null}',
        b'{"t": 1.0, "kind": "metric", "step": 1, "name": "loss"}',
        b'{"t": 1.0, "kind": "metric", "step": 1, "name": "loss", "value": "high"}',
        b'{"t": 1.0, "kind": "ledger", "buckets": {"compute": "much"}, "wall_s": 1.0}',
        b'{"t": 1.0, "kind": "ledger", "buckets": {}}',
    ],
    ids=lambda line: line[:60].decode(errors="replace"),
)
def test_a_line_that_is_no_entry_is_passed_over(tmp_path: Path, line: bytes) -> None:
    """Whatever a worker writes to its journal, its agent reads on."""
    assert parse(line) is None
    path = tmp_path / "rank0.jsonl"
    path.write_bytes(line + b'\n{"t": 2, "kind": "end", "more": [1]}\n')
    assert JournalTail(path, 0).read() == [{"t": 2, "kind": "end", "more": [1]}]


def test_a_folder_is_made_for_a_file(tmp_path: Path) -> None:
    """`make_folder` makes what holds the file, however deep, and may be called again."""
    for _ in range(2):
        make_folder(tmp_path / "a" / "b" / "file")
    assert os.listdir(tmp_path / "a") == ["b"]
