"""Let a worker that hangs be looked into from outside, whatever its main thread is stuck in.

Two independent ways, because either may fail: a signal that makes faulthandler write every thread's
Python stack to a file (runs in the signal handler, so it needs neither the GIL nor the main thread),
and torch's worker server on a Unix socket (a C++ thread), which also gives the flight recorder: the
collectives this process entered, with gloo as with NCCL. `tradewind.diagnose.stacks` is the other end.
"""

import atexit
import faulthandler
import os
import signal
from pathlib import Path
from typing import Any

STACKS_SIGNAL = signal.SIGUSR1
_MAX_SOCKET_PATH = 107
"""Bytes that fit into `sockaddr_un.sun_path` with its final zero."""
_kept: dict[str, Any] = {}
"""What must live as long as the process: faulthandler keeps only a file's number, torch only a thread."""


def dump_on_signal(path: Path, signum: int = STACKS_SIGNAL) -> None:
    """Append every thread's Python stack to `path` whenever the signal arrives; nothing else changes.

    Called again, as after a fork, it goes on with the new path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab", buffering=0)
    faulthandler.register(signum, file=file, all_threads=True, chain=False)
    before, _kept["file"] = _kept.get("file"), file
    if before is not None:
        before.close()


def serve_debug(socket: Path, *, stop_at_exit: bool = True) -> bool:
    """Answer questions about stacks and collectives on a Unix socket; False where torch cannot.

    `stop_at_exit` is needed where the interpreter takes its memory apart before the process ends. Called
    again for the same socket it changes nothing.

    Only this machine's users who may enter the socket's folder can ask. Nothing that is asked changes
    the process. The recorder remembers the last `TORCH_FR_BUFFER_SIZE` collectives (2,000 in torch 2.13).
    """
    if _kept.get("socket") == socket:
        return True
    try:
        from torch._C._distributed_c10d import _WorkerServer
    except ImportError:
        return False
    if len(os.fsencode(socket)) > _MAX_SOCKET_PATH:
        return False
    socket.parent.mkdir(parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    before, server = _kept.get("server"), _WorkerServer(str(socket))
    _kept["server"], _kept["socket"] = server, socket
    if before is None and stop_at_exit:
        # A server thread that outlives the interpreter would answer from memory that is gone.
        atexit.register(stop_serving)
    return True


def stop_serving() -> None:
    """Stop answering; does nothing when nothing was served."""
    server, _ = _kept.pop("server", None), _kept.pop("socket", None)
    if server is not None:
        server.shutdown()
