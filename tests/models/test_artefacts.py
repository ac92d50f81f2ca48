"""The folder of compiled programs: whole or not at all, and nobody else's."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.services.compiled import build, write_small
from tradewind.errors import IntegrityError
from tradewind.models import artefacts, building
from tradewind.models.artefacts import Artefacts, UnsafeFolderError
from tradewind.names import MANIFEST

KEY = "0123abcd"


@pytest.fixture
def cache(tmp_path) -> Artefacts:
    """A cache that holds one artefact."""
    library = tmp_path / "made.so"
    library.write_bytes(b"code")
    found = Artefacts(tmp_path / "home" / "compiled")
    found.publish(KEY, "score", library, "g++ 12", 1.5)
    return found


def test_what_is_published_is_found(cache):
    """With what is known of it; another key has nothing."""
    path, about = cache.find(KEY)
    assert (path.read_bytes(), about.program, about.compiler, about.seconds) == (
        b"code",
        "score",
        "g++ 12",
        1.5,
    )
    assert cache.find("other") is None
    assert cache.folder.stat().st_mode & 0o777 == 0o700


def test_a_later_one_takes_its_place(cache, tmp_path):
    """And leaves nothing beside it."""
    (tmp_path / "made.so").write_bytes(b"better")
    cache.publish(KEY, "score", tmp_path / "made.so", "g++ 13", 1.5)
    assert cache.find(KEY)[0].read_bytes() == b"better"
    assert [path.name for path in cache.folder.iterdir()] == [KEY]


@pytest.mark.parametrize("file", ["program.so", MANIFEST])
@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_what_is_damaged_is_refused(cache, file, damage):
    """Whichever of the two files it is; it says which."""
    path = cache.folder / KEY / file
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(data[:-2] if damage == "cut" else data[:-2] + b"xx")
    with pytest.raises(IntegrityError, match=f"{file}.*compile again"):
        cache.find(KEY)


def test_an_artefact_of_another_key_is_refused(cache):
    """A folder that was renamed."""
    (cache.folder / KEY).rename(cache.folder / "ffff")
    with pytest.raises(IntegrityError):
        cache.find("ffff")


@pytest.mark.parametrize("inside", ["", KEY, f"{KEY}/{MANIFEST}", f"{KEY}/program.so"])
@pytest.mark.parametrize("bits", [0o020, 0o002])
def test_where_others_may_write_nothing_is_read(cache, inside, bits):
    """Group or world, the folder or anything in it."""
    path = cache.folder / inside
    path.chmod(path.stat().st_mode | bits)
    with pytest.raises(UnsafeFolderError, match=f"others may write {path}"):
        cache.find(KEY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("inside", ["", KEY, f"{KEY}/{MANIFEST}", f"{KEY}/program.so"])
def test_what_is_somebody_elses_is_not_read(cache, inside):
    """Somebody else's folder, or a file of theirs in it."""
    os.chown(cache.folder / inside, 12345, -1)
    with pytest.raises(UnsafeFolderError, match="belongs to user 12345"):
        cache.find(KEY)


def test_a_foreign_owner_is_told_by_the_users_id(cache, monkeypatch):
    """As above, where the test cannot give files away: it is the user who is another."""
    monkeypatch.setattr(os, "geteuid", lambda: cache.folder.stat().st_uid + 1)
    with pytest.raises(UnsafeFolderError, match="belongs to user"):
        cache.find(KEY)


def test_a_link_is_not_followed(cache, tmp_path):
    """It may lead to where others write."""
    library = cache.folder / KEY / "program.so"
    library.rename(tmp_path / "elsewhere.so")
    library.symlink_to(tmp_path / "elsewhere.so")
    with pytest.raises(UnsafeFolderError, match="no plain file"):
        cache.find(KEY)


def test_nothing_is_made_where_others_may_write(tmp_path):
    """Compiling stops there too."""
    folder = tmp_path / "compiled"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(UnsafeFolderError):
        Artefacts(folder).make()


def test_the_key_is_the_graphs_not_the_weights(tmp_path, monkeypatch):
    """Other weights, the same key; another graph or another machine, another key."""
    one, two = write_small(tmp_path / "one"), write_small(tmp_path / "two", seed=1)

    def key(package, name):
        return artefacts.key_of(package, package.program(name))

    assert key(one, "score") == key(two, "score")
    assert len({key(one, name) for name in ("score", "twin", "pool")}) == 3
    before = key(one, "score")
    monkeypatch.setattr(artefacts, "target", lambda: {"torch": "another"})
    assert key(one, "score") != before


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_damaged_one_is_built_again_and_a_sound_one_is_not(compiled, tmp_path):
    """What is built serves again."""
    library = compiled.library("score")
    library.write_bytes(library.read_bytes()[:-1])
    built = {b.program: b for b in build(compiled.home, compiled.package.path)}
    assert {name: (b.built, b.error) for name, b in built.items()} == {
        "pool": (False, ""),
        "score": (True, ""),
        "twin": (False, ""),
    }
    assert compiled.artefacts.find(compiled.key("score")) is not None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_builders_at_once_build_each_program_once(compiled):
    """The second waits for the first, and finds it built."""
    for name in ("score", "twin"):
        shutil.rmtree(compiled.library(name).parent)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: build(compiled.home, compiled.package.path), range(2))
    assert [b.error for b in (*one, *two)] == [""] * 6
    assert {b.program: a.built + b.built for a, b in zip(one, two, strict=True)} == {
        "pool": 0,
        "score": 1,
        "twin": 1,
    }
    assert not list((compiled.home / "compiled").glob(".making-*"))


@pytest.mark.timeout(600)
def test_a_builder_that_is_killed_leaves_nothing_to_load(compiled):
    """Half a library has no manifest, and no name that is looked for."""
    library = compiled.library("score")
    for path in (library, library.parent / MANIFEST):
        path.unlink()
    library.parent.rmdir()
    process = subprocess.Popen(
        building.command(str(compiled.package.path)),
        env=building.environment() | {"TRADEWIND_HOME": str(compiled.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        assert process.stdout.readline()  # pool is there; score is being compiled
        process.kill()
    assert compiled.artefacts.find(compiled.key("score")) is None
