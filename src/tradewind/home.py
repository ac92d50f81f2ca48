"""Where this machine's own state is."""

import os
import pathlib

from tradewind import names


def home() -> pathlib.Path:
    """`$TRADEWIND_HOME`, else `~/.tradewind`; not created by asking."""
    return pathlib.Path(os.environ.get(names.ENV_HOME) or "~/.tradewind").expanduser().absolute()
