"""Code on its way into pods: parts, deltas, and the program that lays them out again."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.launch.conftest import Digests, write
from tradewind.errors import SpecError
from tradewind.launch.kubernetes import code as packing
from tradewind.launch.kubernetes import unpack
from tradewind.launch.kubernetes.code import Base, Code, pack, split
from tradewind.launch.snapshot import checkout, snapshot
from tradewind.launch.tree import Entry, Whole, put_tree, read_tree
from tradewind.store import LocalBlobs
from tradewind.store.blobs import digest_of


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    """An empty blob store."""
    return LocalBlobs(tmp_path / "blobs")


def mounted(folder: Path, code: Code, *others: Code, **about: Any) -> Path:
    """The folder of parts as a pod sees it."""
    folder.mkdir(exist_ok=True)
    for name, data in [item for each in (code, *others) for item in each.parts.items()]:
        (folder / name).write_bytes(data)
    described = {"digest": code.digest, "layers": code.layers, "max_bytes": code.max_bytes} | about
    (folder / "snapshot.json").write_text(json.dumps(described))
    return folder


def laid_out(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Every path under a folder, with what it is and holds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = "link" if path.is_symlink() else "exec" if os.access(path, os.X_OK) else "file"
        if kind == "link" or path.is_file():
            content = os.readlink(path).encode() if kind == "link" else path.read_bytes()
            found[str(path.relative_to(folder))] = (kind, content)
    return found


def run_unpack(parts: Path, dest: Path) -> "subprocess.CompletedProcess[str]":
    """The program as a pod runs it: its file alone, isolated from everything installed."""
    command = [sys.executable, "-I", unpack.__file__, parts, dest, f"{dest}-checkpoints"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def project(root: Path) -> Path:
    """A project with an executable, a link, an empty file and names that are not ASCII."""
    write(root, {"train.py": "print(1)\n", "pkg/__init__.py": "", "pkg/größe.py": "x = 'é\u2028'\n"})
    write(root, {"run.sh": "#!/bin/sh\n", 'odd "name"\n\x7f.txt': "\t"})
    (root / "run.sh").chmod(0o755)
    (root / "pkg/link.py").symlink_to("../train.py")
    return root


def test_a_pod_gets_the_bytes_that_a_local_run_gets(root: Path, blobs: LocalBlobs, tmp_path: Path) -> None:
    """What the program lays out is, path by path, what a checkout of the snapshot is."""
    digest = snapshot(project(root), blobs)
    done = run_unpack(mounted(tmp_path / "parts", pack(digest, blobs)), tmp_path / "pod")
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "local").mkdir()
    checkout(digest, blobs, tmp_path / "local")
    assert laid_out(tmp_path / "pod") == laid_out(tmp_path / "local")
    assert len(laid_out(tmp_path / "pod")) == 6


def test_an_edit_moves_what_changed(root: Path, blobs: LocalBlobs, tmp_path: Path) -> None:
    """After an edit, a deletion and a file that became a folder, one small layer on the old ones is enough."""
    write(root, {f"lib/{i}.py": os.urandom(2000).hex() for i in range(100)} | {"a": "a file", "b": "gone"})
    first = pack(snapshot(root, blobs), blobs)
    (root / "a").unlink()
    (root / "b").unlink()
    write(root, {"lib/7.py": "edited", "a/inside.py": "new"})
    base = Base(digest=first.digest, layers=first.layers, max_bytes=first.max_bytes)
    second = pack(snapshot(root, blobs), blobs, base)
    assert second.layers[:-1] == first.layers
    assert sum(map(len, second.parts.values())) < 0.01 * sum(map(len, first.parts.values()))
    assert run_unpack(mounted(tmp_path / "parts", second, first), tmp_path / "pod").returncode == 0
    (tmp_path / "local").mkdir()
    checkout(second.digest, blobs, tmp_path / "local")
    assert laid_out(tmp_path / "pod") == laid_out(tmp_path / "local")


def test_the_same_code_again_moves_nothing(root: Path, blobs: LocalBlobs) -> None:
    """A snapshot that is its own base has no new parts; without a base its parts have the same names."""
    digest = snapshot(project(root), blobs)
    first = pack(digest, blobs)
    base = Base(digest=digest, layers=first.layers, max_bytes=first.max_bytes)
    assert (pack(digest, blobs, base).parts, pack(digest, blobs).layers) == ({}, first.layers)


def test_layers_do_not_pile_up(root: Path, blobs: LocalBlobs) -> None:
    """After so many edits the code is packed afresh, in one layer."""
    write(root, {"train.py": ""})
    code, depths = pack(snapshot(root, blobs), blobs), []
    for edit in range(packing.MAX_LAYERS):
        write(root, {"train.py": f"x = {edit}"})
        base = Base(digest=code.digest, layers=code.layers, max_bytes=code.max_bytes)
        code = pack(snapshot(root, blobs), blobs, base)
        depths.append(len(code.layers))
    assert depths == [*range(2, packing.MAX_LAYERS + 1), 1]


def test_a_large_file_spans_parts(
    root: Path, blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts are cut wherever a ConfigMap is full, and code beyond all of them is refused with the remedy."""
    write(root, {"train.py": "", "table.py": os.urandom(3000).hex()})
    digest = snapshot(root, blobs)
    monkeypatch.setattr(packing, "PART_BYTES", 1000)
    code = pack(digest, blobs)
    assert {len(data) for data in list(code.parts.values())[:-1]} == {1000}
    assert run_unpack(mounted(tmp_path / "parts", code), tmp_path / "pod").returncode == 0
    monkeypatch.setattr(packing, "MAX_PARTS", 2)
    with pytest.raises(SpecError, match=r"list what is not code in \.gitignore, or name an object store"):
        pack(digest, blobs)


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret", "pkg/../../secret", "pkg/.."])
def test_a_link_out_of_the_project_is_refused_before_it_is_sent(
    root: Path, blobs: LocalBlobs, target: str
) -> None:
    """In a pod it would lead elsewhere: submitting says which link and what to do."""
    write(root, {"train.py": "", "pkg/a.py": ""})
    (root / "data").symlink_to(target)
    with pytest.raises(SpecError, match="data is a link to"):
        pack(snapshot(root, blobs), blobs)


HOSTILE: list[tuple[list[list[Any]], str]] = [
    ([["../out", "file", 0]], "leaves the folder"),
    ([["/out", "file", 0]], "leaves the folder"),
    ([["a//b", "file", 0]], "leaves the folder"),
    ([["./a", "file", 0]], "leaves the folder"),
    ([["a\0", "file", 0]], "leaves the folder"),
    ([["a", "link", "/etc"]], "points out of the folder"),
    ([["a", "link", ".."]], "points out of the folder"),
    ([["d/a", "link", "../../x"]], "points out of the folder"),
    ([["d", "link", "."], ["x", "link", "d/d/../.."]], "points out of the folder"),
    ([["d", "link", "e"], ["d/x", "file", 0]], "is under a file or a link"),
    ([["d", "file", 0], ["d/x", "file", 0]], "is under a file or a link"),
    ([["a", "device", 0]], "of an unknown kind"),
    ([["a", "file", 5]], "holds"),
    ([["a", "file", 0]], "should be sha256:00"),
]


@pytest.mark.parametrize(("entries", "problem"), HOSTILE)
def test_hostile_layers_write_nothing(tmp_path: Path, entries: list[list[Any]], problem: str) -> None:
    """Paths and links that leave the folder, writes through links, and other bytes than promised are refused."""
    head = json.dumps(entries).encode()
    raw = len(head).to_bytes(8, "big") + head
    parts = split(raw)
    code = Code(digest="sha256:00", layers=(tuple(parts),), parts=parts, max_bytes=len(raw))
    done = run_unpack(mounted(tmp_path / "parts", code), tmp_path / "pod")
    assert done.returncode == 65
    assert problem in done.stderr
    assert not (tmp_path / "pod").exists()
    assert not (tmp_path / "out").exists()


def test_damaged_missing_and_bloated_parts_are_refused(root: Path, blobs: LocalBlobs, tmp_path: Path) -> None:
    """A flipped byte, a part that is not there, and a layer larger than announced end the step by name."""
    code = pack(snapshot(project(root), blobs), blobs)
    (name, data), parts = next(iter(code.parts.items())), mounted(tmp_path / "parts", code)
    (parts / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert f"part {name} is damaged" in run_unpack(parts, tmp_path / "pod").stderr
    (parts / name).unlink()
    assert f"part {name} cannot be read" in run_unpack(parts, tmp_path / "pod").stderr
    mounted(parts, code, max_bytes=code.max_bytes - 1)
    assert "inflates to over" in run_unpack(parts, tmp_path / "pod").stderr
    assert not (tmp_path / "pod").exists()


def test_unpacking_again_replaces_what_a_broken_try_left(
    root: Path, blobs: LocalBlobs, tmp_path: Path
) -> None:
    """An init step that died half-way is run again in the same volume."""
    parts = mounted(tmp_path / "parts", pack(snapshot(project(root), blobs), blobs))
    run_unpack(parts, tmp_path / "pod")
    whole = laid_out(tmp_path / "pod")
    (tmp_path / "pod/train.py").write_text("pri")
    (tmp_path / "pod/pkg/link.py").unlink()
    assert run_unpack(parts, tmp_path / "pod").returncode == 0
    assert laid_out(tmp_path / "pod") == whole


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8)


@settings(max_examples=50, deadline=None)
@given(
    files=st.dictionaries(
        NAMES.filter(lambda n: n not in (".", "..")), st.tuples(st.binary(), st.booleans()), max_size=150
    )
)
def test_the_digests_are_the_manifest_s(files: dict[str, tuple[bytes, bool]]) -> None:
    """The program's digests of a tree are those of its manifest in both versions, for any names and bytes."""
    tree = {path: ("exec" if run else "file", data) for path, (data, run) in files.items()}
    entries = [Entry(path, digest_of(data), len(data), run) for path, (data, run) in sorted(files.items())]
    whole = digest_of(msgspec.json.encode(Whole(tuple(entries))))
    assert unpack.digests_of(tree) == [put_tree(entries, Digests()), whole]


def test_a_pod_knows_the_digest_of_many_files(root: Path, blobs: LocalBlobs, tmp_path: Path) -> None:
    """Where the manifest has several parts too, and where an older snapshot of the same files is whole."""
    write(root, {f"lib/{i}.py": str(i) for i in range(300)})
    digest = snapshot(root, blobs)
    old = blobs.put(msgspec.json.encode(Whole(read_tree(digest, blobs).entries)))
    for number, each in enumerate((digest, old)):
        parts = mounted(tmp_path / f"parts{number}", pack(each, blobs))
        assert run_unpack(parts, tmp_path / f"pod{number}").stderr == ""
        assert len(laid_out(tmp_path / f"pod{number}")) == 300


def test_checkpoints_lie_beside_the_code_or_on_a_volume(
    root: Path, blobs: LocalBlobs, tmp_path: Path
) -> None:
    """The init step makes the run's checkpoint folder, or a link to one that outlives the pod, as often as it runs."""
    parts = mounted(tmp_path / "parts", pack(snapshot(project(root), blobs), blobs))
    run_unpack(parts, tmp_path / "pod")
    assert (tmp_path / "pod-checkpoints").is_dir()
    link, lasting = tmp_path / "link", tmp_path / "volume/run/checkpoints"
    for _ in range(2):
        assert unpack.main(str(parts), str(tmp_path / "pod"), str(link), str(lasting)) == 0
    assert (link.readlink(), lasting.is_dir()) == (lasting, True)
