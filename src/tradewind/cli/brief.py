"""Commands that look, print and end: the garbage collector has nothing to win in them."""

import atexit
import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def brief() -> Iterator[None]:
    """The collector rests inside, and does not walk at exit what imports and answers left; a fifth of the time of `ps`.

    What is dropped is freed by its count of references all the same; only cycles stay until the process ends.
    """
    atexit.register(gc.freeze)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
