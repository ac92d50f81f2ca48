"""Which files are the code of a project, by git semantics; all but hidden ones where there is no git."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tradewind import names
from tradewind.errors import SpecError

MAX_FILES = 100_000
MAX_BYTES = 2 * 2**30
_SKIPPED = frozenset({"__pycache__", "node_modules", "venv", "env", "build", "dist"})


class File(msgspec.Struct, frozen=True):
    """One file or symlink under the root, with what tells whether it changed."""

    path: str
    size: int
    mode: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def executable(self) -> bool:
        """Whether its owner may execute it; the only permission git keeps."""
        return bool(self.mode & stat.S_IXUSR)


def project_root(script: Path, cwd: Path) -> Path:
    """The git work tree of the script; without git `cwd` when the script is under it, else its folder."""
    done = subprocess.run(
        ["git", "-C", str(script.parent), "rev-parse", "--show-toplevel"],
        capture_output=True,
        check=False,
    )
    if done.returncode == 0:
        return Path(os.fsdecode(done.stdout.rstrip(b"\n"))).resolve()
    return cwd if script.is_relative_to(cwd) else script.parent


def list_files(root: Path) -> list[File]:
    """The project's files, sorted by path.

    Raises SpecError when they are too many or too large to be code.
    """
    names_ = git_names(root)
    found = []
    size = 0
    home = own_home()
    for name in sorted(set(walk(root) if names_ is None else names_)):
        try:
            info = os.lstat(root / name)
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(info.st_mode) or (home and Path(root, name).is_relative_to(home)):
            continue
        size += info.st_size
        found.append(File(name, info.st_size, info.st_mode, info.st_mtime_ns, info.st_ctime_ns, info.st_ino))
        if len(found) > MAX_FILES or size > MAX_BYTES:
            raise SpecError(
                f"{root}: over {MAX_FILES} files or {MAX_BYTES >> 30} GiB; too much to be code. "
                "Keep data outside of it, or list it in .gitignore (after `git init`)"
            )
    return found


def own_home() -> Path | None:
    """The folder of Tradewind's own state, which is never part of a snapshot."""
    text = os.environ.get(names.ENV_HOME)
    return Path(text).resolve() if text else None


def git_names(root: Path) -> list[str] | None:
    """Tracked, modified and untracked-but-not-ignored paths; None where there is no git work tree."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        return None
    found: list[str] = []
    for raw in done.stdout.split(b"\0"):
        name = os.fsdecode(raw)
        if name and os.path.isdir(root / name) and not os.path.islink(root / name):
            inner = git_names(root / name) or []
            found += [os.path.join(name, path) for path in inner]
        elif name:
            found.append(name)
    return found


def walk(root: Path) -> Iterator[str]:
    """Every file that is not hidden, not in a virtual environment and not a build product."""
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if keep(f) and not os.path.exists(f"{folder}/{f}/pyvenv.cfg")]
        links = [f for f in folders if os.path.islink(os.path.join(folder, f))]
        for name in (*files, *links):
            if not name.startswith("."):
                yield os.path.relpath(os.path.join(folder, name), root)


def keep(folder: str) -> bool:
    """Whether a folder of this name holds a project's own files."""
    return not folder.startswith(".") and folder not in _SKIPPED
