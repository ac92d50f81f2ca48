"""Integrity: any change to a package's folder is refused, naming what changed."""

import os
import pathlib
import shutil
from collections.abc import Callable

import msgspec
import pytest

from tradewind import models
from tradewind.errors import IntegrityError
from tradewind.models.manifest import File, seal

Write = Callable[..., models.Package]


@pytest.fixture
def package(write: Write) -> models.Package:
    import torch

    return write(evaluation={"ndcg@10": torch.rand(50)})


def test_a_flipped_bit_in_any_byte_is_refused_naming_the_file(package: models.Package) -> None:
    """Every byte of every small file, and a spread of bytes of the larger, is covered by a digest."""
    files = sorted(path for path in package.path.rglob("*") if path.is_file())
    assert {path.relative_to(package.path).parts[0] for path in files} == {
        *("manifest.json", "programs", "weights", "tensors", "vocabularies", "evaluation.safetensors")
    }
    for path in files:
        size = path.stat().st_size
        for number, position in enumerate({*range(0, size, max(1, size // 300)), size - 1}):
            flip(path, position, 1 << number % 8)
            with pytest.raises(IntegrityError) as refusal:
                models.open_package(package.path)
            assert str(path) in str(refusal.value)
            flip(path, position, 1 << number % 8)
    assert models.open_package(package.path).digest == package.digest


def flip(path: pathlib.Path, position: int, bit: int) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ bit]))


@pytest.mark.parametrize("name", ["manifest.json", "programs/encode.json", "weights/rank.safetensors"])
def test_a_truncated_or_grown_file_is_refused(name: str, package: models.Package) -> None:
    """Every length but the right one is refused, naming the file."""
    path = package.path / name
    whole = path.read_bytes()
    for damaged in (b"", whole[:1], whole[: len(whole) // 2], whole[:-1], whole + b"\n", whole * 2):
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=name):
            models.open_package(package.path)


@pytest.mark.parametrize("name", ["extra.json", "programs/evil.pt2", ".hidden", "weights/.x", "new/file"])
def test_a_file_that_is_not_in_the_manifest_is_refused(name: str, package: models.Package) -> None:
    """Nothing may ride along in a package's folder."""
    (package.path / name).parent.mkdir(exist_ok=True)
    (package.path / name).write_bytes(b"x")
    with pytest.raises(IntegrityError, match=f"{name}: not in the package's manifest"):
        models.open_package(package.path)


@pytest.mark.parametrize("name", ["manifest.json", "vocabularies/item.json", "weights/encode.safetensors"])
def test_a_missing_file_is_refused(name: str, package: models.Package) -> None:
    """The file that is gone is named."""
    (package.path / name).unlink()
    with pytest.raises(IntegrityError, match=name):
        models.open_package(package.path)


def test_links_pipes_and_folders_in_a_files_place_are_refused(
    package: models.Package, tmp_path: pathlib.Path
) -> None:
    """Only plain files are read: no symbolic link (even to the same bytes), no pipe, no folder."""
    path = package.path / "vocabularies" / "item.json"
    copy = shutil.copy(path, tmp_path / "copy.json")
    for replace in (
        lambda: path.symlink_to(copy),
        lambda: os.mkfifo(path),
        path.mkdir,
    ):
        path.unlink() if path.exists() else None
        replace()
        with pytest.raises(IntegrityError, match=r"vocabularies/item\.json"):
            models.open_package(package.path)


def test_a_linked_folder_is_refused(package: models.Package, tmp_path: pathlib.Path) -> None:
    """A folder that is a symbolic link to the very same files is refused."""
    shutil.move(package.path / "weights", tmp_path / "elsewhere")
    (package.path / "weights").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="weights"):
        models.open_package(package.path)


@pytest.mark.parametrize(
    "name",
    ["../outside", "/etc/passwd", "a/../../outside", "a//b", "./a", "a/", "", "..", "a\\b", "a\nb", "a/.b"],
)
def test_a_manifest_that_names_a_path_outside_is_refused(name: str, package: models.Package) -> None:
    """A correctly sealed manifest cannot make the reader leave the folder."""
    manifest = package.manifest
    files = {**manifest.files, name: File(sha256="0" * 64, size=0)}
    (package.path / "manifest.json").write_bytes(seal(msgspec.structs.replace(manifest, files=files))[1])
    with pytest.raises(IntegrityError, match="not a path inside the package"):
        models.open_package(package.path)


def test_the_same_manifest_written_differently_is_refused(package: models.Package) -> None:
    """White space, key order and escapes are part of what is verified."""
    path = package.path / "manifest.json"
    data = path.read_bytes()
    for other in (data.replace(b"\n", b"\n\n", 1), msgspec.json.format(data, indent=0), data.rstrip()):
        path.write_bytes(other)
        with pytest.raises(IntegrityError, match=r"manifest\.json"):
            models.open_package(package.path)


def test_what_was_verified_is_what_runs(package: models.Package) -> None:
    """Files that change after opening change nothing: each is read once."""
    for path in package.path.rglob("*"):
        if path.is_file():
            path.write_bytes(b"changed")
    assert package.vocabulary("item")[1] == "item 1"
    assert package.program("encode") is not None
    assert package.tensors("items")["embedding"].shape == (21, 8)


def test_a_package_is_reopened_only_as_itself(write: Write) -> None:
    """Opening with another package's digest is refused."""
    package, other = write(), write(config={"k": 3})
    with pytest.raises(IntegrityError, match=r"manifest\.json: digest"):
        models.open_package(package.path, digest=other.digest)
