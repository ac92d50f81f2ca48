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
    found = list(itertools.islice(seen(base, dict.fromkeys(names), ours(base, own)), MAX_FILES + 1))
    if len(found) > MAX_FILES or sum(file.size for file in found) > MAX_BYTES:
        raise SpecError(
            f"{root}: over {MAX_FILES} files or {MAX_BYTES >> 30} GiB; too much to be code. "
            "Keep data outside of it, or list it in .gitignore (after `git init`)"
        )
    check_names(found, base)
    found.sort(key=operator.attrgetter("path"))
    return found


def seen(base: str, names: Iterable[str], within: Callable[[str], bool]) -> Iterator[File]:
    """What is there of every name, one look at each; a repository inside of the project gives its own."""
    for name in names:
        if not within(name.rpartition("/")[0]):
            continue
        path = f"{base}/{name}"
        try:
            info = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        mode = info.st_mode
        if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            link = os.readlink(path) if stat.S_ISLNK(mode) else None
            yield File(name, info.st_size, mode, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, link)
        elif stat.S_ISDIR(mode) and os.path.exists(f"{path}/.git"):
            inner = git_names(Path(path)) or []
            yield from seen(base, (os.path.join(name, below) for below in inner), within)


def ours(base: str, own: str) -> Callable[[str], bool]:
    """Whether a folder under `base` can hold code: it is no part of our own state, and none of it is a link.

    Git still lists what lay in a folder that became a link.
    """

    @functools.cache
    def within(folder: str) -> bool:
        path = f"{base}/{folder}" if folder else base
        if f"{path}/".startswith(f"{own}/"):
            return False
        return not folder or (within(folder.rpartition("/")[0]) and is_real_folder(path))

    return within


def is_real_folder(path: str) -> bool:
    """Whether a folder is there, and not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def check_names(found: Iterable[File], base: str) -> None:
    """Refuse names and link targets that are not UTF-8: a manifest is JSON."""
    for file in found:
        if file.path.isascii() and file.link is None:
            continue
        for text in (file.path, file.link or ""):
            if not is_utf8(text):
                raise SpecError(
                    f"{base}: the file name {text!r} is not UTF-8; rename it or ignore {file.path!r}"
                )


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
