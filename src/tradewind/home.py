"""Where this machine's own state is."""

import os
import pathlib
import stat

from tradewind import names


def home() -> pathlib.Path:
    """`$TRADEWIND_HOME`, else `~/.tradewind`; not created by asking."""
    return pathlib.Path(os.environ.get(names.ENV_HOME) or "~/.tradewind").expanduser().absolute()


def why_not_own(path: pathlib.Path) -> str | None:
    """Return why others may have written what lies at `path`; None where it is this user's alone.

    That is a plain file or folder of this user's that nobody else may write. Raises FileNotFoundError.
    """
    status = path.lstat()
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        return f"{path} is no plain file or folder"
    if status.st_uid != os.geteuid():
        return f"{path} belongs to user {status.st_uid}"
    return f"others may write {path}" if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else None
