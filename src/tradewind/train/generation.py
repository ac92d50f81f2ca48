"""Leaving a broken group in place: what a training process lets go of, and what it keeps.

The process, its imports, its device context and its compiled code stay; the process group, the loop and
the script's own objects go, and the script is run again. `tradewind.agent`'s harness calls `abort`, then
`leave`, then `enter`; nothing here is for scripts to call.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Set
from typing import Any

import torch.distributed as dist

from tradewind.train import ledger
from tradewind.train.random_state import reseed

_closers: list[Callable[[], None]] = []
_finishers: list[Callable[[], None]] = []
_connections: set[int] = set()
"""Inodes of the sockets that process groups were made with."""
_retired: list[Any] = []
"""The groups that were left last. A group's end joins its threads with the interpreter's lock held, and a
thread that has just failed may need that lock to let go of its tensors: they would wait for each other. By
the time the next group is left these threads are idle."""


def on_leave(close: Callable[[], None]) -> None:
    """Call `close` when the group is left; from then on the script counts as one that can be re-entered."""
    _closers.append(close)


def can_reenter() -> bool:
    """Whether the script may simply be run again: it has a loop, whose committed state is safe."""
    return bool(_closers)


def on_parting(finish: Callable[[], None]) -> None:
    """Call `finish` before the workers, all of them, take their group down in agreement."""
    _finishers.append(finish)


def part() -> None:
    """Finish what needs the group; every worker calls it, before the group is taken down."""
    while _finishers:
        _finishers.pop()()


@contextlib.contextmanager
def connecting() -> Iterator[set[int]]:
    """Remember the connections that are made inside the block, as those of a process group; and give them."""
    before, made = set(_sockets()), set[int]()
    try:
        yield made
    finally:
        made |= set(_sockets()) - before
        _connections.update(made)


def abort() -> None:
    """Break whoever waits in a collective out of it; called from another thread than the waiting one.

    NCCL's communicators are aborted (run with a group of one only, on one GPU). Gloo has no abort, so its connections are
    closed under it: the collectives that wait on them raise.
    """
    if dist.is_initialized() and "nccl" in dist.get_backend():
        dist.distributed_c10d._abort_process_group()
    hang_up(_connections)


def hang_up(connections: Set[int]) -> None:
    """Close these connections under whoever waits on them, here and at their other ends."""
    for inode, fd in _sockets().items():
        if inode in connections:
            _shut(fd)


def _shut(fd: int) -> None:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as connection:
        connection.getpeername()  # Raises for a socket that listens: gloo ends the process if its accept fails.
        connection.shutdown(socket.SHUT_RDWR)


def leave() -> None:
    """Let go of the loop and the process group, and forget the script's random state."""
    _finishers.clear()
    while _closers:
        _closers.pop()()
    if dist.is_initialized():
        _retired[:] = dist.distributed_c10d._world.pg_map
        dist.destroy_process_group()
    _forget_groups()
    _connections.clear()
    reseed()


def _forget_groups() -> None:
    """What taking groups down does last: the script itself was perhaps at it when it was told to leave.

    The next group is named by how many there were. A worker that counts on where others begin at none looks for them
    under a name of its own, and all wait for each other.
    """
    world = dist.distributed_c10d._world
    for known in (
        world.pg_map,
        world.pg_names,
        world.pg_group_ranks,
        world.pg_backend_config,
        world.pg_to_tag,
        world.tags_to_pg,
        world.pg_coalesce_state,
    ):
        known.clear()
    dist.distributed_c10d._unregister_all_process_groups()  # type: ignore[attr-defined]
    world.group_count = 0


def enter() -> None:
    """Begin again: the time from now on is the next attempt's."""
    ledger.begin_again()


def _sockets() -> dict[int, int]:
    """This process's sockets: inode -> file descriptor."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target: Any = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith("socket:["):
                found[int(target[8:-1])] = int(name)
    return found
