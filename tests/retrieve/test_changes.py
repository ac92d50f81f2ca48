"""Items come, change and go while others search; a snapshot is whole or not there."""

import hashlib
import os
import pathlib
import threading
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tradewind.errors import IntegrityError, NotFoundError
from tradewind.retrieve import FilterError, build, snapshot
from tradewind.retrieve.attributes import Attributes
from tradewind.retrieve.auto import AutoIndex
from tradewind.retrieve.filters import Equal, Flag
from tradewind.retrieve.measure import recall_of
from tradewind.retrieve.scan import best_rows

with warnings.catch_warnings():
    # SWIG's own types warn when first imported.
    warnings.simplefilter("ignore", DeprecationWarning)
    import faiss  # noqa: F401


def clustered(count: int, seed: int = 0, dimension: int = 16) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((30, dimension), dtype=np.float32)
    spread = 0.4 * generator.standard_normal((count, dimension), dtype=np.float32)
    return centres[generator.integers(0, 30, count)] + spread


class Model:
    """What an index should hold, as a dictionary."""

    def __init__(self, table: np.ndarray, brands: list[str]) -> None:
        self.items = {i: (table[i], brands[i]) for i in range(1, len(table))}
        self.end = len(table)

    def expect(self, index: AutoIndex, queries: np.ndarray, k: int) -> None:
        """The index answers as a new one over what the dictionary holds, with and without a filter."""
        held = sorted(self.items)
        table = np.zeros((self.end, queries.shape[1]), "f4")
        brands: list[Any] = [None] * self.end
        for position in held:
            table[position], brands[position] = self.items[position]
        naive = build("naive", table, attributes=Attributes({"brand": brands}))
        gone = [i for i in range(self.end) if i not in self.items]
        for wanted in (None, Equal(field="brand", value="a"), Equal(field="brand", value="new")):
            each = [wanted] * len(queries)
            expected = naive.search(queries, k, [gone] * len(queries), each)
            hits = index.search(queries, k, filters=each)
            np.testing.assert_array_equal(hits.scores, expected.scores)
            for row, scores, query in zip(hits.positions, hits.scores, queries, strict=True):
                found = row[row >= 0].tolist()
                assert [float(self.items[i][0] @ query) for i in found] == scores[: len(found)].tolist()
        assert index.num_items == self.end


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_order_of_changes_leaves_what_a_dictionary_would_hold(data: st.DataObject) -> None:
    """Upserts of old, new and repeated positions, deletes, and rebuilds, in any order."""
    generator = np.random.default_rng(data.draw(st.integers(0, 9)))

    def vectors(count: int) -> np.ndarray:
        return generator.integers(-3, 4, size=(count, 3)).astype("f4")

    table, brands = vectors(6), ["a", "b", "a", "b", "a", "b"]
    index = AutoIndex(table, skip=1, attributes=Attributes({"brand": brands}))
    model = Model(table, brands)
    for step in data.draw(st.lists(st.sampled_from(["upsert", "delete", "rebuild", "grow"]), max_size=8)):
        if step == "rebuild":
            index.rebuild()
            continue
        low, high = (model.end, model.end + 2) if step == "grow" else (1, model.end - 1)
        places = data.draw(st.lists(st.integers(low, high), max_size=4))
        if step == "grow":
            places = [model.end + i for i in range(len({*places}))]
        if step == "delete":
            index.delete(places)
            for position in places:
                model.items.pop(position, None)
            continue
        rows, names = vectors(len(places)), [["a", "new"][int(generator.integers(0, 2))] for _ in places]
        index.upsert(places, rows, {"brand": names})
        model.items |= {p: (rows[i], names[i]) for i, p in enumerate(places)}
        model.end = max([model.end, *(p + 1 for p in places)])
        model.expect(index, vectors(2), 4)
    model.expect(index, vectors(2), 4)


def test_recall_after_churn_is_what_it_was() -> None:
    """A third of the items replaced or deleted and as many new: recall before a rebuild and after is the target's."""
    table, more, queries = clustered(18_000), clustered(6_000, seed=1), clustered(50, seed=2)
    index = AutoIndex(table, audit_share=0)
    generator = np.random.default_rng(3)
    index.upsert(np.arange(18_000, 21_000), more[:3000])
    changed = generator.choice(18_000, 3000, replace=False)
    index.upsert(changed, more[3000:])
    gone = generator.choice(18_000, 1500, replace=False)
    index.delete(gone)
    now = np.concatenate([table, more[:3000]])
    now[changed] = more[3000:]
    held = np.setdiff1d(np.arange(21_000), gone)
    expected = held[best_rows(torch.from_numpy(now[held]), queries, 100).rows]
    for rebuild in (False, True):
        if rebuild:
            index.wait_rebuilt()
            index.rebuild()
            assert not index.state.chunks
            assert index.state.base.inverted is not None
        found = index.search(queries, 100).positions
        assert recall_of(found, expected).mean() >= 0.98
        assert not np.isin(found, gone).any()


def test_changes_made_while_the_index_is_rebuilt_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is upserted or deleted between a rebuild's begin and its end is there after it."""
    from tradewind.retrieve import building

    index = AutoIndex(np.eye(4, dtype="f4"))
    index.upsert([4], np.ones((1, 4), "f4"))
    real = building.rebuilt

    def slow(*args: Any, **options: Any) -> Any:
        made = real(*args, **options)
        index.upsert([5, 0], np.array([[9, 0, 0, 0], [0, 9, 0, 0]], "f4"))
        index.delete([4, 1])
        with pytest.raises(RuntimeError, match="being rebuilt already"):
            index.rebuild()
        return made

    monkeypatch.setattr(building, "rebuilt", slow)
    index.rebuild()
    hits = index.search(np.array([[1, 0, 0, 0], [0, 1, 0, 0]], "f4"), 6)
    assert hits.positions[:, 0].tolist() == [5, 0]
    assert {*hits.positions.ravel().tolist()} == {-1, 0, 2, 3, 5}


def test_a_failed_rebuild_leaves_the_index_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index answers as before, whoever waits gets the error, and the next rebuild may succeed."""
    from tradewind.retrieve import auto, building

    monkeypatch.setattr(auto, "_REBUILD_LEAST", 2)
    monkeypatch.setattr(building, "rebuilt", lambda *_, **__: 1 / 0)
    index = AutoIndex(np.eye(4, dtype="f4"))
    index.upsert([4, 5], np.ones((2, 4), "f4"))
    with pytest.raises(ZeroDivisionError):
        index.wait_rebuilt()
    assert (index.search(np.ones((1, 4), "f4"), 6).positions >= 0).all()
    monkeypatch.undo()
    index.rebuild()
    assert not index.state.chunks


def test_searches_from_several_threads_see_whole_changes() -> None:
    """Items that are upserted and deleted in pairs are found in pairs, through rebuilds in the background."""
    table = clustered(17_000)
    index = AutoIndex(table, audit_share=0)
    strong = np.full((2, 16), 50, "f4") + np.array([[0.0], [1.0]], "f4")
    query = np.ones((1, 16), "f4")
    failures: list[object] = []
    stop = threading.Event()
    searched = threading.Semaphore(0)

    def reader() -> None:
        while not stop.is_set():
            found = {*index.search(query, 2).positions[0].tolist()} & {5, 6}
            if len(found) == 1:
                failures.append(found)
            searched.release()

    def writer() -> None:
        for _ in range(30):
            index.upsert([5, 6], strong)
            index.delete([5, 6])

    readers = [threading.Thread(target=reader) for _ in range(2)]
    writers = [threading.Thread(target=writer) for _ in range(2)]
    for thread in [*readers, *writers]:
        thread.start()
    index.rebuild()
    for thread in writers:
        thread.join()
    for _ in range(10):
        assert searched.acquire(timeout=60)
    stop.set()
    for thread in readers:
        thread.join()
    assert not failures
    index.wait_rebuilt()
    assert index.search(query, 2).scores[0, 0] < 100


@pytest.mark.parametrize(
    ("positions", "vectors", "attributes", "message"),
    [
        ([6], np.ones((1, 4), "f4"), {"a": [True]}, "without a gap; 6 does not"),
        ([-1], np.ones((1, 4), "f4"), {"a": [True]}, "without a gap"),
        ([0], np.ones((1, 3), "f4"), {"a": [True]}, r"shape \[1, 3\], not \[1, 4\]"),
        ([0], np.full((1, 4), np.nan, "f4"), {"a": [True]}, "NaN"),
        ([0], np.ones((1, 4), "f4"), None, "the index has"),
        ([0], np.ones((1, 4), "f4"), {"a": ["x"]}, "the index has"),
        ([0], np.ones((1, 4), "f4"), {"a": [True, True]}, "2 rows of attributes for 1 items"),
    ],
)
def test_an_upsert_that_does_not_fit_changes_nothing(
    positions: list[int], vectors: np.ndarray, attributes: Any, message: str
) -> None:
    """Gaps, shapes, NaN and attributes are refused with what is wrong, and the index stays as it was."""
    index = AutoIndex(np.eye(4, dtype="f4"), attributes=Attributes({"a": [True] * 4}))
    before = index.state
    with pytest.raises((ValueError, FilterError), match=message):
        index.upsert(positions, vectors, attributes)
    assert index.state is before
    with pytest.raises(ValueError, match="outside 0 to 3"):
        index.delete([4])


@pytest.fixture(scope="module")
def kept() -> AutoIndex:
    """Inverted lists, every kind of column, fresh items and dead ones."""
    count = 17_000
    attributes = Attributes(
        {
            "brand": ["a", None] * (count // 2),
            "price": np.arange(count) / 7,
            "in_stock": np.arange(count) % 3 == 0,
            "genres": [["x", "y"], []] * (count // 2),
        }
    )
    index = AutoIndex(clustered(count), skip=1, attributes=attributes)
    fresh = {"brand": ["new"] * 2, "price": [1.0, 2.0], "in_stock": [True] * 2, "genres": [["z"], ["x"]]}
    index.upsert([9, count], clustered(2, seed=7), fresh)
    index.delete([3])
    return index


def test_a_kept_index_answers_as_the_one_that_was_kept(kept: AutoIndex, tmp_path: pathlib.Path) -> None:
    """Vectors, attributes, fresh and dead items and the measured profile are all there; two generations are kept."""
    for _ in range(3):
        snapshot.save(kept, tmp_path)
    loaded = snapshot.load(tmp_path)
    queries = clustered(5, seed=4)
    for wanted in (None, Equal(field="brand", value="new"), Flag(field="in_stock")):
        expected = kept.search(queries, 20, filters=[wanted] * 5)
        hits = loaded.search(queries, 20, filters=[wanted] * 5)
        np.testing.assert_array_equal(hits.positions, expected.positions)
        np.testing.assert_array_equal(hits.scores, expected.scores)
    assert loaded.num_items == kept.num_items
    assert loaded.state.base.profile == kept.state.base.profile
    assert len([*tmp_path.glob("generation-*")]) == 2
    loaded.upsert(
        [kept.num_items], clustered(1), {"brand": ["a"], "price": [1], "in_stock": [True], "genres": [[]]}
    )


def test_a_damaged_snapshot_is_refused_by_name(kept: AutoIndex, tmp_path: pathlib.Path) -> None:
    """One flipped byte in any file, a lost file and a damaged CURRENT are IntegrityErrors that name the file."""
    with pytest.raises(NotFoundError, match="no index was kept"):
        snapshot.load(tmp_path)
    snapshot.save(kept, tmp_path)
    (generation,) = tmp_path.glob("generation-*")
    files = sorted(generation.iterdir())
    assert len(files) > 10
    for file in files:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        whole = file.read_bytes()
        file.write_bytes(data)
        with pytest.raises(IntegrityError, match=file.name):
            snapshot.load(tmp_path)
        file.unlink()
        with pytest.raises(IntegrityError, match=f"{file.name}: missing"):
            snapshot.load(tmp_path)
        file.write_bytes(whole)
    (tmp_path / "CURRENT").write_text("../../etc abc\n")
    with pytest.raises(IntegrityError, match="CURRENT"):
        snapshot.load(tmp_path)


def test_a_snapshot_of_another_version_is_refused(kept: AutoIndex, tmp_path: pathlib.Path) -> None:
    """Whatever else is in its manifest: what to do about it is said, not which field is missing."""
    snapshot.save(kept, tmp_path)
    (generation,) = tmp_path.glob("generation-*")
    manifest = b'{"version": 1, "anything": []}'
    (generation / "manifest.json").write_bytes(manifest)
    (tmp_path / "CURRENT").write_text(f"{generation.name} {hashlib.sha256(manifest).hexdigest()}\n")
    with pytest.raises(IntegrityError, match=r"another version of tradewind \(1\); build the index anew"):
        snapshot.load(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_save_cut_off_anywhere_leaves_the_snapshot_before(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Every flush and the rename may be where it ends: what loads is the old index or the new one, whole."""
    old, new = AutoIndex(np.eye(4, dtype="f4")), AutoIndex(np.ones((3, 4), "f4"))
    real = getattr(os, call)
    for cut in range(20):
        root = tmp_path / str(cut)
        snapshot.save(old, root)
        calls = iter(range(100))

        def cut_off(*args: Any, at: int = cut, seen: Any = calls) -> Any:
            if next(seen) == at:
                raise OSError("power lost")
            return real(*args)

        with monkeypatch.context() as patched:
            patched.setattr(os, call, cut_off)
            try:
                snapshot.save(new, root)
            except OSError:
                assert snapshot.load(root).num_items in (3, 4)
                continue
        assert cut >= {"fsync": 5, "replace": 1}[call]
        assert snapshot.load(root).num_items == 3
        break
    else:
        raise AssertionError("the save never came to its end")
