"""Which files are the code of a project, by git semantics; all but hidden ones where there is no git."""

from __future__ import annotations

import functools
import itertools
import operator
import os
import stat
from pathlib import Path

from tradewind.errors import SpecError
from tradewind.home import home
from tradewind.launch.file import File
from tradewind.launch.spawn import output_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAX_FILES = 100_000
MAX_BYTES = 2 * 2**30
_SKIPPED = frozenset({"__pycache__", "node_modules", "venv", "env", "build", "dist"})
_GIT_ELSEWHERE = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"})
"""Set inside git's own hooks; they would point every call at the repository of the hook."""


def project_root(script: Path, cwd: Path) -> Path:
    """The git work tree of the script; without git `cwd` when the script is under it, else its folder.

    Raises SpecError when there is a repository that git will not read.
    """
    found = git(script.parent, "rev-parse", "--show-toplevel")
    if found is not None:
        return Path(os.fsdecode(found.rstrip(b"\n"))).resolve()
    return cwd if script.is_relative_to(cwd) else script.parent


def git(folder: Path, *args: str) -> bytes | None:
    """What git prints in `folder`; None when it is in no work tree.

    Raises SpecError when there is a repository that git will not read: taking every file instead would
    snapshot what it ignores.
    """
    real = folder.resolve()
    if not any(os.path.exists(parent / ".git") for parent in (real, *real.parents)):
        return None  # As git would say; where there is one, git says whether it is a repository.
    env = {k: v for k, v in os.environ.items() if k not in _GIT_ELSEWHERE} | {"LC_ALL": "C"}
    try:
        done = output_of(["git", "-C", os.fspath(folder), *args], env)
    except FileNotFoundError:
        raise SpecError(f"{folder}: is in a git repository and git is not installed; install it") from None
    if done.returncode == 0:
        return done.stdout
    if b"not a git repository" in done.stderr or b"must be run in a work tree" in done.stderr:
        return None
    raise SpecError(f"{folder}: git {args[0]} failed: {done.stderr.decode(errors='replace').strip()}")


def list_files(root: Path) -> list[File]:
    """The project's files, sorted by path.

    Raises SpecError when they are too many or too large to be code.
    """
    base, own = os.path.realpath(root), os.path.realpath(home())
    listed = git_names(root)
    names = itertools.islice(walk(base, own), MAX_FILES + 1) if listed is None else listed
    found, size = [], 0
    for name, info in seen(
        base, dict.fromkeys(names), functools.cache(lambda path: is_ours(base, own, path))
    ):
        file = look(base, name, info)
        if file is None:
            continue
        size += file.size
        found.append(file)
        if len(found) > MAX_FILES or size > MAX_BYTES:
            raise SpecError(
                f"{root}: over {MAX_FILES} files or {MAX_BYTES >> 30} GiB; too much to be code. "
                "Keep data outside of it, or list it in .gitignore (after `git init`)"
            )
    found.sort(key=operator.attrgetter("path"))
    return found


def seen(
    base: str, names: Iterable[str], within: Callable[[str], bool]
) -> Iterator[tuple[str, os.stat_result]]:
    """Every name with what is there, one look at each; a repository inside of the project gives its own."""
    for name in names:
        if not within(name.rpartition("/")[0]):
            continue
        path = f"{base}/{name}"
        try:
            info = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISDIR(info.st_mode):
            yield name, info
        elif os.path.exists(f"{path}/.git"):
            inner = git_names(Path(path)) or []
            yield from seen(base, (os.path.join(name, below) for below in inner), within)


def is_ours(base: str, own: str, folder: str) -> bool:
    """Whether `folder` under `base` can hold code: it is no part of our own state, and none of it is a link."""
    return not f"{base}/{folder}/".startswith(f"{own}/") and is_real_folder(base, folder)


def is_real_folder(base: str, folder: str) -> bool:
    """Whether no part of `folder` under `base` is a link: git still lists what lay in a folder that became one."""
    path = os.path.join(base, folder) if folder else base
    return os.path.realpath(path) == path


def look(base: str, name: str, info: os.stat_result) -> File | None:
    """One file or link; None when it is something that is not content."""
    link = os.readlink(f"{base}/{name}") if stat.S_ISLNK(info.st_mode) else None
    if link is None and not stat.S_ISREG(info.st_mode):
        return None
    for text in (name, link or ""):
        if not text.isascii() and not is_utf8(text):
            raise SpecError(f"{base}: the file name {text!r} is not UTF-8; rename it or ignore {name!r}")
    return File(name, info.st_size, info.st_mode, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, link)


def is_utf8(text: str) -> bool:
    """Whether the bytes of a file name were text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def git_names(root: Path) -> list[str] | None:
    """Tracked, modified and untracked-but-not-ignored paths, and the folders of repositories inside of it.

    None where there is no git work tree.
    """
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed is None:
        return None
    return [name for name in os.fsdecode(listed).split("\0") if name]


def walk(base: str, own: str) -> Iterator[str]:
    """Every file that is not hidden, not ours, not in a virtual environment and not a build product."""
    for folder, folders, files in os.walk(base):
        folders[:] = [f for f in folders if keep(f) and f"{folder}/{f}" != own and not is_venv(folder, f)]
        links = [f for f in folders if os.path.islink(os.path.join(folder, f))]
        for name in (*files, *links):
            if not name.startswith("."):
                yield os.path.relpath(os.path.join(folder, name), base)


def is_venv(folder: str, name: str) -> bool:
    """Whether this is a virtual environment of Python."""
    return os.path.exists(f"{folder}/{name}/pyvenv.cfg")


def keep(folder: str) -> bool:
    """Whether a folder of this name holds a project's own files."""
    return not folder.startswith(".") and folder not in _SKIPPED
