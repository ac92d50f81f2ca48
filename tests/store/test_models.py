"""Model versions and aliases, the same on SQLite and PostgreSQL."""

import time

import pytest

from tradewind.errors import NotFoundError, SpecError
from tradewind.store import Store


@pytest.fixture
def three(store: Store) -> Store:
    """Three versions of `rec`, one of `other`."""
    for name, digest in (("rec", "a"), ("rec", "b"), ("other", "c"), ("rec", "d")):
        store.add_model_version(name, digest, f"/models/{digest}", {"metrics": {"ndcg": 0.5}})
    return store


def test_what_names_a_version(three: Store) -> None:
    """`name@3`, `name@alias` and `name` (the newest) find their version."""
    three.set_alias("rec", "production", 2, "better")
    found = [three.model_version(ref).digest for ref in ("rec@1", "rec@production", "rec", "other")]
    assert found == ["a", "b", "d", "c"]
    newest = three.model_version("rec")
    assert (newest.ref, newest.path, newest.manifest) == ("rec@3", "/models/d", {"metrics": {"ndcg": 0.5}})
    assert [item.ref for item in three.model_versions()] == ["other@1", "rec@1", "rec@2", "rec@3"]
    assert [item.ref for item in three.model_versions("rec")] == ["rec@1", "rec@2", "rec@3"]


@pytest.mark.parametrize(
    "ref", ["rec@4", "rec@0", "rec@staging", "rec@", "nobody", "nobody@1", "@1", "rec@-1", ""]
)
def test_what_names_no_version(three: Store, ref: str) -> None:
    """A reference to nothing is NotFoundError, and says what there is."""
    with pytest.raises(NotFoundError, match=r"there is no model|has versions 1 to 3"):
        three.model_version(ref)


def test_an_alias_keeps_its_history(three: Store) -> None:
    """Every move is kept with its time, reason and actor; the last one is where the alias points."""
    before = time.time()
    moves = [(1, "first", ""), (3, "gate passed", "ci"), (1, "rollback", "ana")]
    for version, why, actor in moves:
        three.set_alias("rec", "production", version, why, actor)
    three.set_alias("rec", "staging", 3, "try")
    three.set_alias("other", "production", 1, "first")
    history = three.alias_history("rec", "production")
    assert [(move.version, move.why, move.actor) for move in history] == moves
    assert before <= history[0].t_s <= history[1].t_s <= history[2].t_s <= time.time()
    assert three.model_version("rec@production").version == 1
    assert [(now.name, now.alias, now.version) for now in three.aliases()] == [
        ("other", "production", 1),
        ("rec", "production", 1),
        ("rec", "staging", 3),
    ]
    assert three.aliases("rec")[0] == history[-1]


def test_an_alias_points_at_a_version_that_exists(three: Store) -> None:
    """An alias to nothing is refused and leaves no trace."""
    with pytest.raises(NotFoundError, match="rec@9"):
        three.set_alias("rec", "production", 9, "typo")
    assert three.aliases() == []


@pytest.mark.parametrize("name", ["", "3", "a@b", "a/b", ".hidden", " a"])
def test_names_that_would_be_ambiguous(three: Store, name: str) -> None:
    """A name that could be read as a number, a reference or a path is refused."""
    with pytest.raises(SpecError, match="cannot name a model"):
        three.add_model_version(name, "d", "p", {})
    with pytest.raises(SpecError, match="cannot name an alias"):
        three.set_alias("rec", name, 1, "why")


def test_a_path_may_depend_on_the_number(three: Store) -> None:
    """A path function is given the number, and an error in it undoes the version."""

    def fail(version: int) -> str:
        raise OSError(f"disk full at {version}")

    with pytest.raises(OSError, match="disk full at 4"):
        three.add_model_version("rec", "e", fail, {})
    new = three.add_model_version("rec", "e", lambda version: f"/models/rec/{version}", {})
    assert (new.version, new.path) == (4, "/models/rec/4")
    assert three.model_version("rec@4") == new
