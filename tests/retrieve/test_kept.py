"""What an index learnt of a table is kept, and the next one is built of it; what is damaged is not used."""

import concurrent.futures
import os
import pathlib
import re
import threading
import warnings

import numpy as np
import pytest

from tradewind.errors import IntegrityError
from tradewind.retrieve import Index, build, building, kept
from tradewind.retrieve.kept import Kept, build_kept
from tradewind.retrieve.registry import LEARN

with warnings.catch_warnings():
    # SWIG's own types warn when first imported.
    warnings.simplefilter("ignore", DeprecationWarning)
    import faiss

FROM = {"items": "a digest"}


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    """Just enough for lists to be made."""
    return np.random.default_rng(0).standard_normal((building.MIN_INVERTED + 1, 8), dtype=np.float32)


@pytest.fixture
def shelf(tmp_path: pathlib.Path) -> Kept:
    return Kept(tmp_path / "indexes")


def files(shelf: Kept) -> list[pathlib.Path]:
    return sorted(shelf.folder.glob("*.index"))


def learns(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What takes long, told as it is done."""
    told: list[str] = []

    def telling(where: object, name: str) -> None:
        real = getattr(where, name)

        def tell(*args, **kwargs):
            told.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(where, name, tell)

    telling(building, "measure")
    telling(faiss, "Kmeans")
    telling(faiss.IndexIVFFlat, "train")
    telling(faiss, "IndexHNSWFlat")
    return told


@pytest.mark.parametrize("kind", sorted(LEARN))
def test_the_second_is_built_of_what_the_first_learnt(
    kind: str, table: np.ndarray, shelf: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds the same with the same scores, and learns nothing."""
    told = learns(monkeypatch)
    first = build_kept(shelf, FROM, kind, table, skip=1)
    assert told
    told.clear()
    second = build_kept(shelf, FROM, kind, table, skip=1)
    assert not told
    check_alike(first, second, table)
    assert len(files(shelf)) == 1


def check_alike(first: Index, second: Index, table: np.ndarray) -> None:
    for one, other in zip(first.search(table[:40], 20), second.search(table[:40], 20), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_table_or_machine_or_kind_is_another_index(table: np.ndarray, shelf: Kept) -> None:
    """And so is one that returns other rows."""
    for made_from, kind, skip in (
        (FROM, "faiss-ivf", 0),
        (FROM | {"threads": 2}, "faiss-ivf", 0),
        (FROM, "faiss-hnsw", 0),
        (FROM, "faiss-ivf", 1),
    ):
        build_kept(shelf, made_from, kind, table[:100], skip=skip)
    assert len(files(shelf)) == 4


@pytest.mark.parametrize("kind", ["exact", "faiss", "naive"])
def test_what_learns_nothing_keeps_nothing(kind: str, table: np.ndarray, shelf: Kept) -> None:
    build_kept(shelf, FROM, kind, table)
    assert not shelf.folder.exists()


def test_a_small_table_keeps_nothing(table: np.ndarray, shelf: Kept) -> None:
    """There `auto` scans, and has learnt nothing."""
    build_kept(shelf, FROM, "auto", table[:100])
    assert not files(shelf)


@pytest.mark.parametrize("at", [0, 70, -1])
def test_a_damaged_file_is_reported_and_made_anew(at: int, table: np.ndarray, shelf: Kept) -> None:
    """Wherever the damage is: in the sum, in what describes the arrays, in them."""
    first = build_kept(shelf, FROM, "faiss-ivf", table)
    (file,) = files(shelf)
    good = file.read_bytes()
    data = bytearray(good)
    data[at] ^= 1
    file.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"\.index: the bytes are not those that were written"):
        shelf.find(file.stem)
    check_alike(first, build_kept(shelf, FROM, "faiss-ivf", table), table)
    assert file.read_bytes() == good


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"centroids": np.zeros((3, 8), np.float32)}, r"centroids are float32\[3, 8\], not float32\[2, 8\]"),
        ({"centroids": np.zeros((2, 8))}, r"centroids are float64\[2, 8\]"),
        ({"assigned": np.zeros(99, np.int64)}, r"clusters are int64\[99\], not int64\[100\]"),
        ({"assigned": np.zeros(100, np.int32)}, r"clusters are int32\[100\]"),
        ({"assigned": np.full(100, 2)}, "an item's cluster is outside 0 to 1"),
        ({"assigned": np.full(100, -1)}, "an item's cluster is outside 0 to 1"),
    ],
)
def test_clusters_that_do_not_fit_are_not_used(
    broken: dict[str, np.ndarray], why: str, table: np.ndarray, shelf: Kept
) -> None:
    """FAISS would read and write beyond its memory; what was kept so is replaced."""
    first = build_kept(shelf, FROM, "faiss-ivf", table[:100])
    bad = {**first.learnt, **broken}
    with pytest.raises(ValueError, match=why):
        build("faiss-ivf", table[:100], learnt=bad)
    (file,) = files(shelf)
    good = file.read_bytes()
    shelf.put(file.stem, bad)
    check_alike(first, build_kept(shelf, FROM, "faiss-ivf", table[:100]), table)
    assert file.read_bytes() == good


def test_a_measurement_of_another_form_is_not_used(table: np.ndarray, shelf: Kept) -> None:
    """As an older version of this package may have kept it; it is measured again."""
    first = build_kept(shelf, FROM, "auto", table)
    bad = {**first.learnt, "profile": np.frombuffer(b'{"target": 0.9}', dtype=np.uint8)}
    with pytest.raises(ValueError, match="what the lists measured is not in today's form"):
        build("auto", table, learnt=bad)
    (file,) = files(shelf)
    shelf.put(file.stem, bad)
    check_alike(first, build_kept(shelf, FROM, "auto", table), table)
    found = shelf.find(file.stem)
    assert found is not None
    assert found["profile"].tobytes() != bad["profile"].tobytes()


def test_a_graph_of_another_table_is_not_used(table: np.ndarray) -> None:
    learnt = build("faiss-hnsw", table[:100]).learnt
    with pytest.raises(ValueError, match=r"the graph is of 100 vectors of 8, not \(99, 8\)"):
        build("faiss-hnsw", table[:99], learnt=learnt)


def test_a_folder_that_others_may_write_is_not_used(table: np.ndarray, shelf: Kept) -> None:
    """The index is built all the same."""
    shelf.folder.mkdir()
    shelf.folder.chmod(0o777)
    said = f"^others may write {re.escape(str(shelf.folder))}; indexes are not read from it$"
    with pytest.raises(PermissionError, match=said), shelf.building("a"):
        pass
    assert build_kept(shelf, FROM, "faiss-ivf", table[:100]).num_items == 100
    assert not files(shelf)


def test_a_folder_that_is_a_link_is_not_used(shelf: Kept, tmp_path: pathlib.Path) -> None:
    """It may lead to where others write."""
    (tmp_path / "elsewhere").mkdir()
    shelf.folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="is no plain file or folder"), shelf.building("a"):
        pass


def test_where_nothing_can_be_written_the_index_is_built(table: np.ndarray, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    shelf = Kept(tmp_path / "file" / "indexes")
    assert build_kept(shelf, FROM, "faiss-ivf", table[:100]).num_items == 100


def test_of_two_at_once_one_learns(table: np.ndarray, shelf: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other waits for it, as workers that start together do."""
    told = learns(monkeypatch)
    together = threading.Barrier(2)

    def make(_: int) -> Index:
        together.wait(60)
        return build_kept(shelf, FROM, "faiss-ivf", table)

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        first, second = threads.map(make, range(2))
    assert told == ["train"]
    check_alike(first, second, table)


def test_those_not_read_for_longest_go_first(shelf: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing half-written stays."""
    monkeypatch.setattr(kept, "MOST", 2)
    with shelf.building("a"):
        for at, key in enumerate(("a1", "a2")):
            shelf.put(key, {"x": np.zeros(1)})
            os.utime(shelf.folder / f"{key}.index", (at, at))
        assert shelf.find("a1") is not None
        shelf.put("a3", {"x": np.zeros(1)})
    assert [file.stem for file in files(shelf)] == ["a1", "a3"]
    assert shelf.find("a2") is None
    assert {path.name for path in shelf.folder.iterdir()} == {"a1.index", "a3.index", "lock-a"}
