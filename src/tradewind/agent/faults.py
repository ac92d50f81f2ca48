"""The faults themselves: how a worker's network is cut, a disk filled or slowed, a file damaged.

Those that last return what undoes them. Each raises TradewindError where this machine cannot do it, or
where it would hit more than the run.
"""

import contextlib
import errno
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from tradewind.errors import TradewindError

Undo = Callable[[], None]

_LARGEST_DISK = 2 * 2**30
_CHUNKS = (2**20, 2**12)
_SLOWING_BYTES = 8 * 2**20


def cut_network(pid: int) -> Undo:
    """Take down every interface of the named network namespace in which a process lives.

    Needs root and `ip`. Raises TradewindError for a process in the machine's own network, which
    others use too: start its agent under `ip netns exec NAME`.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise TradewindError("a partition needs root and the `ip` command (iproute2)")
    space = ip("netns", "identify", str(pid)).strip()
    if not space:
        raise TradewindError(
            f"process {pid} lives in this machine's own network; to partition it, start its agent with "
            "`ip netns exec NAME tradewind run ...`"
        )
    listed = ip("-n", space, "-o", "link", "show", "up").splitlines()
    links = [line.split(": ")[1].split("@")[0] for line in listed]
    for link in links:
        ip("-n", space, "link", "set", link, "down")

    def heal() -> None:
        for link in links:
            ip("-n", space, "link", "set", link, "up")

    return heal


def ip(*words: str) -> str:
    """What `ip` prints; raises TradewindError with what it complains of."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise TradewindError(f"`ip {' '.join(words)}` failed: {done.stderr.strip()}")
    return done.stdout


def fill_disk(folder: Path) -> Undo:
    """Leave no byte free on the file system that holds `folder`.

    Raises TradewindError for one above 2 GiB: it would be others' too. Mount a small tmpfs there.
    """
    system = os.statvfs(folder)
    if system.f_blocks * system.f_frsize > _LARGEST_DISK:
        raise TradewindError(
            f"{folder} lies on a file system of more than 2 GiB, which a test must not fill; mount a small "
            "one there: mount -t tmpfs -o size=64m tmpfs FOLDER"
        )
    file = folder / f".full-{os.getpid()}"
    with file.open("wb", buffering=0) as out:
        for size in _CHUNKS:
            write_until_full(out.fileno(), size)
    return lambda: file.unlink(missing_ok=True)


def write_until_full(fd: int, size: int) -> None:
    """Write zeros in pieces of this size until there is no room for another."""
    piece = bytes(size)
    while True:
        try:
            os.write(fd, piece)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return


def slow_disk(folder: Path) -> Undo:
    """Keep the disk that holds `folder` busy with writes and syncs, as a noisy neighbour does."""
    file, over = folder / f".slow-{os.getpid()}", threading.Event()

    def disturb() -> None:
        piece = os.urandom(_SLOWING_BYTES)
        with file.open("wb", buffering=0) as out:
            while not over.is_set():
                os.pwrite(out.fileno(), piece, 0)
                os.fsync(out.fileno())

    thread = threading.Thread(target=disturb, daemon=True)
    thread.start()

    def stop() -> None:
        over.set()
        thread.join()
        file.unlink(missing_ok=True)

    return stop


def corrupt_file(path: Path, rng: random.Random) -> int:
    """Flip one bit of a file in place, and return which. Raises TradewindError for an empty file."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            raise TradewindError(f"{path} is empty, so no bit of it can be flipped")
        bit = rng.randrange(8 * size)
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ (1 << bit % 8)]))
    return bit


def newest_file(checkpoints: Path) -> Path:
    """The largest file of the newest checkpoint. Raises TradewindError when there is none."""
    sizes: list[tuple[int, Path]] = []
    for path in sorted(checkpoints.glob("step-*"))[-1:]:
        for file in path.iterdir():
            with contextlib.suppress(FileNotFoundError):
                sizes.append((file.stat().st_size, file))
    if not sizes:
        raise TradewindError(f"{checkpoints} holds no checkpoint to corrupt")
    return max(sizes)[1]
