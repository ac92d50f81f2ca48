"""The warm standby as a process: it has imported torch, holds nothing else, and forks workers on request.

Run by its path, `python -P -u forkserver.py FD`, and made of the standard library alone: a worker imports
the `tradewind` of its run's code snapshot, which may be older or newer than the agent.

The agent's end of the socket FD asks `{"fork": {"argv", "env", "cwd"}}` and passes two file descriptors:
the worker's log and its control socket. The answer is `{"pid"}` with a pidfd. When a worker ends, the
server says `{"pid", "exit_code"}`; a signal is a negative exit code. `{"import": [names]}` asks it to
import more; what fails to import is left to the worker.
"""

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import random
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_MESSAGE_BYTES = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)


class ForkServer:
    """Children by their pidfd; one request or one exit at a time."""

    def __init__(self, agent: socket.socket) -> None:
        self.agent = agent
        self.children: dict[int, int] = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(agent, selectors.EVENT_READ)

    def serve(self) -> "Worker | None":
        """Serve until the agent goes away; in a forked child, return what it has to do."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is not self.agent:
                    self._reap(key.fd)
                    continue
                try:
                    data, fds, _, _ = socket.recv_fds(self.agent, _MESSAGE_BYTES, 2)
                except ConnectionResetError:
                    data = b""
                if not data:
                    return None
                worker = self._asked(json.loads(data), fds)
                if worker is not None:
                    return worker

    def _asked(self, message: dict[str, Any], fds: list[int]) -> "Worker | None":
        if "import" in message:
            preload(message["import"])
            return None
        request = message["fork"]
        pid = os.fork()
        if pid == 0:
            self._forget()
            return Worker(request, *fds)
        for fd in fds:
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        self.children[pidfd] = pid
        self.selector.register(pidfd, selectors.EVENT_READ)
        socket.send_fds(self.agent, [json.dumps({"pid": pid}).encode()], [pidfd])
        return None

    def _reap(self, pidfd: int) -> None:
        self.selector.unregister(pidfd)
        os.close(pidfd)
        pid, status = os.waitpid(self.children.pop(pidfd), 0)
        self.agent.send(json.dumps({"pid": pid, "exit_code": os.waitstatus_to_exitcode(status)}).encode())

    def _forget(self) -> None:
        """In a child: let go of what belongs to the server."""
        self.selector.close()
        self.agent.close()
        for pidfd in self.children:
            os.close(pidfd)


class Worker:
    """A child that has just been forked: what it runs, and how it becomes a process like a started one."""

    def __init__(self, request: dict[str, Any], log: int, control: int) -> None:
        self.argv: list[str] = request["argv"]
        self.env: dict[str, str] = request["env"]
        self.cwd: str = request["cwd"]
        self.log, self.control = log, control

    def become(self, server: int) -> None:
        """Take the place of a process that was started afresh."""
        os.setsid()
        die_with(server)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (self.log, 1), (self.log, 2)):
            os.dup2(source, target)
            os.close(source) if source != self.log else None
        os.close(self.log)
        os.environ.clear()
        os.environ.update(self.env)
        os.chdir(self.cwd)
        reseed()


def reseed() -> None:
    """Give the generators that a new process seeds from the system a seed of their own, as it would."""
    random.seed()
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def preload(names: list[str]) -> None:
    """Import what workers will need; a name that fails here fails in the worker, where it is seen."""
    for name in names:
        with contextlib.suppress(
            Exception
        ):  # The worker meets the same error, with its traceback in its log.
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # Collections in a child then leave these pages shared.


def die_with(parent: int) -> None:
    """Let the kernel kill this process when `parent` dies."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def load_harness() -> Any:
    """The module beside this one, by path: see above why not by name."""
    path = Path(__file__).with_name("harness.py")
    spec = importlib.util.spec_from_file_location("tradewind_harness", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Serve on the socket named by the command line; in a child, run the script and end with its code."""
    agent = socket.socket(fileno=int(sys.argv[1]))
    die_with(int(sys.argv[2]))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # The agent decides when its workers end.
    harness = load_harness()
    server = os.getpid()
    worker = ForkServer(agent).serve()
    if worker is None:
        return
    worker.become(server)
    harness.Harness(worker.argv, socket.socket(fileno=worker.control)).run()


if __name__ == "__main__":
    main()
