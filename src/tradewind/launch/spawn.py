"""Another program's output, without `subprocess`, whose import takes longer than git does."""

from __future__ import annotations

import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NamedTuple

    class Done(NamedTuple):
        returncode: int
        stdout: bytes
        stderr: bytes
else:
    from collections import namedtuple

    Done = namedtuple("Done", "returncode stdout stderr")


def output_of(command: list[str], env: Mapping[str, str]) -> Done:
    """Run a program to its end, with nothing on its standard input.

    Raises FileNotFoundError where there is none of that name.
    """
    out, err = memory_file(), memory_file()
    try:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out, 1),
            (os.POSIX_SPAWN_DUP2, err, 2),
        ]
        child = os.posix_spawnp(command[0], command, env, file_actions=actions)
        _, status = os.waitpid(child, 0)
        return Done(os.waitstatus_to_exitcode(status), content(out), content(err))
    finally:
        os.close(out)
        os.close(err)


def memory_file() -> int:
    """An empty file in memory; its descriptor is none of the standard ones, even where those are closed."""
    made = os.memfd_create("output")
    try:
        return fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(made)


def content(file: int) -> bytes:
    """All that was written to it, whatever position its writers left."""
    with open(file, "rb", closefd=False) as stream:
        stream.seek(0)
        return stream.read()
