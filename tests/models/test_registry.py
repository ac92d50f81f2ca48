"""Registry: versions are immutable, aliases move through the gate."""

import pathlib
from collections.abc import Callable, Iterator

import pytest
import torch

from tradewind import models
from tradewind.errors import GateError, IntegrityError, NotFoundError, SpecError
from tradewind.models.gate import Gate
from tradewind.store import Store, open_store

Write = Callable[..., models.Package]


@pytest.fixture
def store(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        yield store


def test_published_versions_resolve_by_number_alias_and_name(store: Store, write: Write) -> None:
    """`name@N`, `name@alias` and `name` give the package that was published."""
    first, second = write(), write(config={"k": 2})
    assert models.publish(store, first.path, "small").version == 1
    assert models.publish(store, second.path, "small").version == 2
    models.promote(store, "small", 1, "production")
    assert models.resolve(store, "small@1").digest == first.digest
    assert models.resolve(store, "small@production").digest == first.digest
    assert models.resolve(store, "small").digest == second.digest
    with pytest.raises(NotFoundError):
        models.resolve(store, "small@9")


def test_publishing_the_same_package_twice_is_the_same_version(store: Store, write: Write) -> None:
    """Same bytes, same version."""
    package = write()
    assert models.publish(store, package.path, "small") == models.publish(store, package.path, "small")


def test_a_damaged_package_is_neither_published_nor_resolved(store: Store, write: Write) -> None:
    """Damage before publishing and damage afterwards are both refused, naming the file."""
    package = write()
    published = pathlib.Path(models.publish(store, package.path, "small").path) / "programs" / "encode.json"
    published.chmod(0o644)
    published.write_bytes(published.read_bytes()[:-1] + b"\x00")
    with pytest.raises(IntegrityError, match=r"programs/encode\.json"):
        models.resolve(store, "small@1")
    (package.path / "programs" / "rank.json").unlink()
    with pytest.raises(IntegrityError, match=r"programs/rank\.json"):
        models.publish(store, package.path, "other")


def test_a_whole_other_package_in_the_folder_is_refused(store: Store, write: Write) -> None:
    """A folder swapped for another valid package does not pass for the version that was published."""
    version = models.publish(store, write().path, "small")
    other = write(config={"k": 2})
    pathlib.Path(version.path).rename(pathlib.Path(version.path).with_name("gone"))
    other.path.rename(version.path)
    with pytest.raises(IntegrityError, match=r"manifest\.json"):
        models.resolve(store, "small@1")


def test_published_files_are_read_only(store: Store, write: Write) -> None:
    """Nobody edits a version by accident."""
    folder = pathlib.Path(models.publish(store, write().path, "small").path)
    assert {path.stat().st_mode & 0o222 for path in folder.rglob("*") if path.is_file()} == {0}


@pytest.mark.parametrize("name", ["", "Up", "../x", "a/b", "a@1", "a b", "-x"])
def test_names_that_cannot_stand_in_a_reference_are_refused(name: str, store: Store, write: Write) -> None:
    """A model's name is safe in a path, a URL and `name@alias`."""
    with pytest.raises(SpecError):
        models.publish(store, write().path, name)


def test_promotion_asks_the_gate(store: Store, write: Write) -> None:
    """A worse version is refused with the figures and changes nothing; force moves the alias all the same."""
    torch.manual_seed(0)
    good = torch.rand(500)
    versions = [{"ndcg@10": good}, {"ndcg@10": good - 0.1}, {"ndcg@10": good + 0.01}]
    for evaluation in versions:
        models.publish(store, write(evaluation=evaluation).path, "small")
    models.promote(store, "small", 1, "production")
    with pytest.raises(GateError, match=r"small@2 may be worse than small@1.*ndcg@10 -0\.1000"):
        models.promote(store, "small", 2, "production")
    assert store.model_version("small@production").version == 1
    verdicts = models.promote(store, "small", 3, "production", gate=Gate(metrics={"ndcg@10": 0.002}))
    assert [v.passed for v in verdicts] == [True]
    models.promote(store, "small", 2, "production", force=True)
    history = store.alias_history("small", "production")
    assert sorted(h.version for h in history) == [1, 2, 3]


@pytest.mark.parametrize("alias", ["3", "Production", "a/b"])
def test_an_alias_that_reads_as_something_else_is_refused(alias: str, store: Store, write: Write) -> None:
    """An alias is a word."""
    models.publish(store, write().path, "small")
    with pytest.raises(SpecError):
        models.promote(store, "small", 1, alias)
