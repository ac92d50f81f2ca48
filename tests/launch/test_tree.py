"""A manifest in parts: equal trees have equal parts, and what is not a manifest is named."""

import itertools
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradewind.errors import IntegrityError
from tradewind.launch.tree import PART_ENTRIES, Entry, Whole, changes, cut, put_tree, read_tree
from tradewind.store.blobs import LocalBlobs

PATHS = st.lists(st.text(min_size=1, max_size=4), unique=True, max_size=200).map(sorted)


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    """An empty blob store."""
    return LocalBlobs(tmp_path / "blobs")


def entries(count: int, edited: int = -1) -> list[Entry]:
    """Files of a tree; one of them with another content."""
    return [Entry(f"f{i:05}", f"sha256:{i}", 1 + (i == edited)) for i in range(count)]


@settings(max_examples=50, deadline=None)
@given(PATHS)
def test_parts_cover_every_path_once(paths: list[str]) -> None:
    """Parts follow each other without gaps, and none is empty."""
    borders = list(cut(paths))
    assert all(start < end for start, end in borders)
    assert [0, *(end for _, end in borders)] == [*(start for start, _ in borders), len(paths)]


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1, max_size=4))
def test_a_new_path_moves_no_border(new: str) -> None:
    """With one more path, every part but the one that gets it, or is split by it, lists the same paths."""
    paths = sorted(f"m{number}" for number in range(500))
    more = sorted({*paths, new})
    before = {tuple(paths[start:end]) for start, end in cut(paths)}
    after = {tuple(more[start:end]) for start, end in cut(more)}
    assert len(before - after) <= 1
    assert len(after - before) <= 2


def test_parts_are_small() -> None:
    """A part of a large tree lists about as many entries as it should."""
    paths = [item.path for item in entries(20_000)]
    sizes = [end - start for start, end in cut(paths)]
    assert PART_ENTRIES / 2 < sum(sizes) / len(sizes) < PART_ENTRIES * 2
    assert max(sizes) < PART_ENTRIES * 16


def test_a_tree_comes_back_in_order(blobs: LocalBlobs) -> None:
    """Entries stored in any order are read sorted by path, under the same digest."""
    first = put_tree(entries(300), blobs)
    assert put_tree(reversed(entries(300)), blobs) == first
    assert list(read_tree(first, blobs).entries) == entries(300)
    assert read_tree(put_tree([], blobs), blobs).entries == ()


def test_changes_are_what_differs_and_read_no_more(blobs: LocalBlobs, tmp_path: Path) -> None:
    """Edited and new entries and the paths that are gone; also when parts that both have cannot be read."""
    before = put_tree(entries(300), blobs)
    after = put_tree([*entries(299, edited=7), Entry("new")], blobs)
    for part in set(read_tree(before, blobs).parts).intersection(read_tree(after, blobs).parts):
        next((tmp_path / "blobs").rglob(part.removeprefix("sha256:"))).unlink()
    assert changes(before, after, blobs) == ([entries(8, edited=7)[7], Entry("new")], ["f00299"])


@pytest.mark.parametrize("kinds", list(itertools.product([True, False], repeat=2)))
def test_changes_between_manifests_of_both_versions(blobs: LocalBlobs, kinds: tuple[bool, bool]) -> None:
    """A snapshot whose manifest is whole can be compared too."""
    before, after = (
        blobs.put(msgspec.json.encode(Whole(tuple(tree)))) if whole else put_tree(tree, blobs)
        for tree, whole in zip((entries(300), entries(299, edited=7)), kinds, strict=True)
    )
    assert changes(before, after, blobs) == ([entries(8, edited=7)[7]], ["f00299"])


@pytest.mark.parametrize(
    "junk", [b"[]", b"{", b'{"version":3,"parts":[]}', b'{"version":2}', b'{"version":1,"parts":[]}', b"\xff"]
)
def test_what_is_no_manifest_is_named(blobs: LocalBlobs, junk: bytes) -> None:
    """Other bytes, a version of a later time and a manifest without its list are refused, by digest."""
    digest = blobs.put(junk)
    with pytest.raises(IntegrityError, match=f"{digest}: not a tree manifest"):
        read_tree(digest, blobs)


def test_a_part_that_is_none_is_named(blobs: LocalBlobs) -> None:
    """A root that lists something else is refused, with the digest of that."""
    part = blobs.put(b'{"entries":[]}')
    root = blobs.put(b'{"version":2,"parts":["' + part.encode() + b'"]}')
    with pytest.raises(IntegrityError, match=f"{part}: not a part of a tree manifest"):
        read_tree(root, blobs)
