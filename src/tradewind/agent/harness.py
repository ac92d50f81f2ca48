"""What stands around a script in its worker: it runs it, and runs it again in place when a peer was lost.

Standard library alone, loaded by path (see `forkserver.py`). The control socket carries JSON, one object a
message. From the agent: `{"do": "break"}`: a peer is gone, leave the collective; `{"do": "enter", "env",
"log"}`: run the script again with these variables. To the agent: `{"at": "parked", "why"}`: out of the
script, process and imports kept, waiting to be told.

A script can be re-entered when it made a `train.Loop`, whose state is somewhere safe. Any other script is
left to end by itself and is started afresh, as torchrun would.
"""

import atexit
import contextlib
import gc
import json
import os
import runpy
import signal
import socket
import sys
import threading
from collections.abc import Collection
from types import FrameType, TracebackType
from typing import Any, NoReturn

BREAK_SIGNAL = signal.SIGUSR2
PEER_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "remote process exited",
    "NCCL communicator was aborted",
    "Socket closed",
    "recvValue failed",
    "sendBytes failed",
)
"""What torch.distributed says when a peer went away; the agent, which sees every exit, has the last word."""
_PATIENCE_S = 10.0
_MESSAGE_BYTES = 1 << 20


class PeerLostError(Exception):
    """Raised in the main thread, wherever it is, when the agent says that the group is broken."""


class Harness:
    """Runs `argv[0]` as `__main__` until it ends, re-entering it as often as the agent asks."""

    def __init__(self, argv: list[str], control: socket.socket) -> None:
        self.argv = argv
        self._control = control
        self._broken = threading.Event()
        self._entered = threading.Event()
        self._inside = False
        self._left: set[threading.Thread] = set()
        """Threads that were there when the script was left."""
        self._next: dict[str, Any] = {}
        self._main = threading.main_thread().ident or 0

    def run(self) -> NoReturn:
        """Run the script to its end and end this process with its exit code."""
        signal.signal(BREAK_SIGNAL, self._interrupt)
        threading.Thread(target=self._listen, name="tradewind-control", daemon=True).start()
        while True:
            code = self._attempt()
            if code is not None:
                leave(code, self._left)
            self._park()

    def _attempt(self) -> int | None:
        """The script's exit code, or None when it was left because a peer is gone."""
        script = self.argv[0]
        sys.argv[:] = self.argv
        sys.path[0] = os.path.dirname(os.path.abspath(script))
        try:
            try:
                self._inside = True
                runpy.run_path(script, run_name="__main__")
            finally:
                self._inside = False
        except SystemExit as error:
            return exit_code(error)
        except BaseException as error:  # noqa: BLE001  Printed below, as the interpreter would.
            if self._is_peer_lost(error):
                print(f"tradewind: left the group, a peer is gone ({brief(error)})", file=sys.stderr)
                return None
            sys.excepthook(type(error), error, from_script(error.__traceback__))
            return 1
        return 0

    def _is_peer_lost(self, error: BaseException) -> bool:
        """Whether this error is the consequence of another worker's end; asks the agent in doubt."""
        if train_hooks() is None:
            return False
        if self._broken.is_set():
            return True
        return any(mark in str(error) for mark in PEER_LOST) and self._broken.wait(_PATIENCE_S)

    def _park(self) -> None:
        """Drop the broken group and everything of the script's, tell the agent, and wait."""
        hooks = train_hooks()
        if hooks is not None:
            hooks.leave()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        gc.collect()
        self._left.update(threading.enumerate())
        self._tell({"at": "parked"})
        self._entered.wait()
        self._entered.clear()
        self._broken.clear()
        os.environ.update(self._next["env"])
        log = os.open(self._next["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        if hooks is not None:
            hooks.enter()

    def _listen(self) -> None:
        """The control thread: takes the agent's messages as they come."""
        while data := self._control.recv(_MESSAGE_BYTES):
            message = json.loads(data)
            if message["do"] == "enter":
                self._next = message
                self._entered.set()
            else:
                self._break()

    def _break(self) -> None:
        """Get the main thread out of the script: out of a collective, or of whatever it waits for."""
        hooks = train_hooks()
        if hooks is None:
            os._exit(128 + signal.SIGTERM)  # Nothing of this script's is worth keeping: it starts afresh.
        self._broken.set()
        hooks.abort()
        with contextlib.suppress(ProcessLookupError):
            signal.pthread_kill(self._main, BREAK_SIGNAL)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._inside and self._broken.is_set():
            self._inside = False
            raise PeerLostError("the agent said that a worker of this group has ended")

    def _tell(self, message: dict[str, Any]) -> None:
        self._control.send(json.dumps(message).encode())


def train_hooks() -> Any:
    """`tradewind.train.generation` of the script's own tradewind, once a Loop of the script was made."""
    module: Any = sys.modules.get("tradewind.train.generation")
    return module if module is not None and module.can_reenter() else None


def exit_code(error: SystemExit) -> int:
    """What the interpreter would end with."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def brief(error: BaseException) -> str:
    """The first line of an error, not too long."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def from_script(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of this harness and of runpy."""
    own = (__file__, runpy.__file__, "<frozen runpy>")
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename in own:
        trace = trace.tb_next
    return trace


def leave(code: int, left: Collection[threading.Thread] = ()) -> NoReturn:
    """End this process as the interpreter would, but without taking the modules apart, nor waiting for threads that were `left`.

    Taking them apart joins and destroys torch's communication threads in no particular order; that can
    abort a process that has done all its work. A thread of a script that was left may wait for ever for what that was
    about to tell it: so does a pool's that was being started at that instant.
    """
    for finish in reversed(threading._threading_atexits):  # type: ignore[attr-defined]
        finish()  # What was handed to pools is done.
    aside = {threading.current_thread(), *left}
    while waited_for := [t for t in threading.enumerate() if not t.daemon and t not in aside]:
        waited_for[0].join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
