"""One file of a project."""

import stat
from collections import namedtuple


class File(namedtuple("File", "path size mode mtime_ns ctime_ns inode link", defaults=(None,))):
    """One file or symlink under the root, with what tells whether it changed.

    Not `typing.NamedTuple` and no msgspec struct: to count files must cost neither import. To msgspec it is an array.
    """

    __slots__ = ()
    path: str
    size: int
    mode: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    link: str | None
    """Where it points, when it is a symbolic link."""

    @property
    def executable(self) -> bool:
        """Whether its owner may execute it; the only permission git keeps."""
        return bool(self.mode & stat.S_IXUSR)
