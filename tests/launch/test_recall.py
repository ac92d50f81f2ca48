"""What the last snapshot found is trusted only where it holds."""

import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tradewind.launch.file import File
from tradewind.launch.recall import Memory, Part, known_digests, known_parts, load, save


def file(path: str, ctime_ns: int) -> File:
    """A file of one byte."""
    return File(path, 1, stat.S_IFREG, ctime_ns, ctime_ns, 1)


def test_a_file_changed_within_a_tick_of_the_clock_is_not_trusted(tmp_path: Path) -> None:
    """A file that could change once more and look the same is not remembered; a moment later it is."""
    seen_ns = time.time_ns()
    racy, calm = file("racy", seen_ns - 10_000_000), file("calm", seen_ns - 100_000_000)
    save(tmp_path / "m", [calm, racy], ["d1", "d2"], [Part(2, "p")], seen_ns)
    memory = load(tmp_path / "m")
    assert known_digests([calm, racy], memory, ()) == ["d1", ""]
    assert known_digests([racy], memory, ()) == [""]
    assert known_digests([calm], memory, ()) == ["d1"]


def test_any_sign_of_a_change_counts() -> None:
    """Another size, mode, time or inode is another file, also where files came or went beside it."""
    calm, other = file("calm", 5), file("other", 5)
    memory = Memory(files=(calm,), digests=("d1",))
    for field in ("size", "mode", "mtime_ns", "ctime_ns", "inode"):
        changed = calm._replace(**{field: getattr(calm, field) + 1})
        assert known_digests([changed], memory, ()) == [""], field
        assert known_digests([changed, other], memory, ()) == ["", ""], field
    assert known_digests([calm, other], memory, ()) == ["d1", ""]


def test_what_a_blob_store_lost_is_not_known() -> None:
    """Neither files nor parts of the manifest whose blobs are gone."""
    a, b = file("a", 5), file("b", 5)
    memory = Memory(files=(a, b), digests=("d1", "d2"), parts=(Part(1, "p1"), Part(1, "p2")))
    assert known_digests([a, b], memory, {"d2"}) == ["d1", ""]
    assert known_parts(memory, {"p1"}) == {"b": ((b,), Part(1, "p2"))}


def test_times_and_inodes_of_any_size_are_kept(tmp_path: Path) -> None:
    """Before 1970, after 2262 and an inode of 64 bits come back as they were."""
    odd = File("odd", 1, stat.S_IFREG, -(2**62), 2**64 - 1, 2**64 - 1)
    save(tmp_path / "m", [odd], ["d"], [Part(1, "p")], 2**70)
    assert load(tmp_path / "m").files == (odd,)


def test_two_threads_may_remember_at_once(tmp_path: Path) -> None:
    """Whoever comes last is remembered, and neither takes the other's file away."""
    path = tmp_path / "m"
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(lambda _: save(path, [file("a", 5)], ["d"], [Part(1, "p")], time.time_ns()), range(200))
        )
    assert load(path).digests == ("d",)
    assert [each.name for each in tmp_path.iterdir()] == ["m"]
