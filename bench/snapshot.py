"""The second submit after a one-file edit in a repository of 20,000 files, beside rsync and tar.

Each round edits one file. Then a fresh interpreter takes our snapshot, `rsync -a --delete` brings a copy of the
working tree up to date, and `tar` makes a whole copy; all three leave out `.git` and write to the same disk. Ours
is the time from the interpreter's first statement to the digest: every import that a snapshot needs, git, and what
is written and flushed to disk; the start of the interpreter itself is not in it, for a submit has started one.
`ms_imports` is what the imports take of it, most of which a submit has done too. rsync's and tar's times are those of
their processes, and they flush nothing. Bytes moved are those of what is sent to a cluster: the compressed layer that
goes on top of the one that is there, against all of the code compressed in the same way; and, for code too large for
that, everything that an object store lacks (files, parts of the manifest, its root), against the bytes of all files.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from bench.harness import Figure, Options, interleave, main, ratio, wall_seconds
from tradewind.launch.kubernetes.code import Base, pack
from tradewind.launch.kubernetes.submit import upload
from tradewind.launch.snapshot import snapshot
from tradewind.store.blobs import LocalBlobs

NAME = "snapshot"
FILES = 20_000
FILES_QUICK = 500
WORDS = (Path(__file__).parent / "harness.py").read_text().split()
TAKE = """
import time
started = time.perf_counter()
import sys
from pathlib import Path
from tradewind.launch.snapshot import snapshot
from tradewind.store import open_blobs
imported = time.perf_counter()
snapshot(Path(sys.argv[1]), open_blobs(sys.argv[2]), Path(sys.argv[3]))
print(time.perf_counter() - started, imported - started)
"""


def measure(options: Options) -> Mapping[str, Figure]:
    """Edit one file and take a snapshot, in turn with rsync and tar; then count the bytes that go to a cluster."""
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder), FILES_QUICK if options.quick else FILES)
        project.take()
        project.sync()
        times = interleave(
            {"tradewind": project.edit_and_take, "rsync": project.sync, "tar": project.copy},
            options.repeats,
        )
        moved = [project.move() for _ in range(options.repeats)]
    return {
        "ms_one_file": Figure.of([1000 * seconds for seconds in times["tradewind"]], "ms"),
        "ms_imports": Figure.of([1000 * seconds for seconds in project.imports[-options.repeats :]], "ms"),
        "ratio_rsync": ratio(times["tradewind"], times["rsync"]),
        "ratio_tar": ratio(times["tradewind"], times["tar"]),
        "bytes_ratio_full": Figure.of([layer for layer, _ in moved], "ratio"),
        "bytes_ratio_full_store": Figure.of([stored for _, stored in moved], "ratio"),
    }


class Project:
    """A generated git repository, and the places to which it is copied."""

    def __init__(self, folder: Path, files: int) -> None:
        self.root = folder / "project"
        self.paths = generate(self.root, files)
        self.blobs, self.far = LocalBlobs(folder / "blobs"), LocalBlobs(folder / "far")
        self.imports: list[float] = []
        """Seconds that each snapshot spent on imports."""
        self._folder = folder
        self._edits = random.Random(1)

    def edit(self) -> None:
        """Write another line into one file."""
        with self._edits.choice(self.paths).open("a") as file:
            file.write(f"edited = {self._edits.random()}\n")

    def take(self) -> float:
        """Seconds of a snapshot with all of its imports, in an interpreter that has just been started."""
        command = [sys.executable, "-c", TAKE, str(self.root), self.blobs.url, str(self._folder / "cache")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        whole, imports = map(float, done.stdout.split())
        self.imports.append(imports)
        return whole

    def edit_and_take(self) -> float:
        """The same after an edit, which the other contenders of the round then find."""
        self.edit()
        time.sleep(
            0.1
        )  # Whoever submits is slower than this; younger files are read once more the next time.
        return self.take()

    def sync(self) -> float:
        """Seconds of rsync."""
        source, target = f"{self.root}/", f"{self._folder / 'rsync'}/"
        return wall_seconds(["rsync", "-a", "--delete", "--exclude=/.git", source, target])

    def copy(self) -> float:
        """Seconds of a whole copy by tar."""
        target = self._folder / "tar"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        pipe = 'tar -C "$1" --exclude=./.git -cf - . | tar -C "$2" -xf -'
        return wall_seconds(["sh", "-c", pipe, "sh", str(self.root), str(target)])

    def snapshot(self) -> str:
        """The digest of the code as it is now."""
        return snapshot(self.root, self.blobs, self._folder / "cache")

    def move(self) -> tuple[float, float]:
        """Bytes sent after an edit, as parts of all that would be: in ConfigMaps, and to a blob store."""
        before = self.snapshot()
        whole = pack(before, self.blobs)
        upload(before, self.blobs, self.far)
        stored = size(self.far.root)
        self.edit()
        after = self.snapshot()
        base = Base(digest=before, layers=whole.layers, max_bytes=whole.max_bytes)
        layer = pack(after, self.blobs, base)
        about = json.dumps({"digest": after, "layers": layer.layers, "max_bytes": layer.max_bytes})
        sent = sum(map(len, layer.parts.values())) + len(about)
        upload(after, self.blobs, self.far)
        files = sum(path.stat().st_size for path in self.paths)
        return sent / sum(map(len, whole.parts.values())), (size(self.far.root) - stored) / files


def generate(root: Path, files: int) -> list[Path]:
    """A git repository of so many text files, 20 a folder, about 2 KiB each, all committed."""
    rng = random.Random(0)
    paths = []
    for index in range(files):
        path = root / f"package{index // 2000}" / f"part{index // 200 % 10}" / f"group{index // 20 % 10}"
        path.mkdir(parents=True, exist_ok=True)
        paths.append(path / f"module{index}.py")
        paths[-1].write_text(text(rng))
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "All"]):
        identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.com", "-c", "gc.auto=0"]
        subprocess.run(["git", "-C", str(root), *identity, *command], check=True)
    return paths


def text(rng: random.Random) -> str:
    """Lines of words, as long as files of code are: mostly short, now and then long."""
    lines = min(400, max(3, int(rng.lognormvariate(3.3, 0.9))))
    return "\n".join(" ".join(rng.choices(WORDS, k=8)) for _ in range(lines)) + "\n"


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main(NAME, measure, packages=("msgspec",))
