"""Write staged images to disk while training goes on."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tradewind.errors import TradewindError
from tradewind.train.checkpoint import files, image, parts, sums
from tradewind.train.checkpoint.files import Entry
from tradewind.train.checkpoint.memory import Memory, Staged
from tradewind.train.checkpoint.pace import SHARE, UNHURRIED, Pace
from tradewind.train.checkpoint.writer import commit, prune
from tradewind.train.distributed import Peers


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint that is on disk."""

    step: int
    folder: Path
    bytes: int
    """In the files of all workers."""
    seconds: float
    """From the begin of writing to the commit, rests included."""
    rested_s: float
    """Of these seconds, those in which this worker only made way for training."""


class Saver:
    """Makes durable checkpoints of staged steps from a thread of its own.

    Every worker makes one, and calls `start`, `save`, `wait` and `close` after the same steps. At most
    one checkpoint is being written: what is started meanwhile is skipped, on all workers, and counted
    in `skipped`; nothing queues. The thread burns `share` of one core, a piece at a time, and takes no rest while
    somebody waits for it. What failed is raised on the training thread by its next `poll` or `wait`, once;
    the next step that is started is tried again.

    Workers agree over `peers`, which must be used by nothing else: its group is the thread's own. When
    it breaks, or on a defect, the thread has `ended`, on all workers, and there is only an error to fetch.
    """

    def __init__(
        self,
        root: Path,
        memory: Memory,
        *,
        peers: Peers | None = None,
        share: float = SHARE,
        keep: int | None = None,
    ) -> None:
        self.root = root
        self.skipped = 0
        """Checkpoints that were started and given up, because the disk was not done with another."""
        self._memory = memory
        self._peers = peers or Peers()
        self._pace = Pace(share)
        self._keep = keep
        self._state = threading.Condition()
        self._wanted: Staged | None = None
        self._writing = False
        self._draining = 0
        self._ended = False
        self._saved: list[Saved] = []
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="tradewind-saver", daemon=True)
        self._thread.start()

    def start(self, step: int) -> bool:
        """Begin to write the step that was staged last; False when it is skipped."""
        with self._state:
            if self._ended:
                self._raise()
            if self._writing:
                self.skipped += 1
                return False
            # Not agreed on yet: some worker was still writing when it was started, and skipped it.
            self._give_up()
            self._wanted = self._memory.pin(step, seals=True)
            self._state.notify_all()
            return True

    def poll(self) -> list[Saved]:
        """What has become durable since the last call."""
        with self._state:
            self._raise()
            saved, self._saved = self._saved, []
            return saved

    def wait(self) -> list[Saved]:
        """Have what is under way finished at full speed; what `poll` would give then."""
        self._drain()
        return self.poll()

    def save(self, step: int) -> list[Saved]:
        """Have the step that was staged last written, whatever is under way; returns when it is durable."""
        self._drain()
        self.start(step)
        return self.wait()

    def close(self) -> list[Saved]:
        """Finish what is under way and end the thread."""
        try:
            return self.wait()
        finally:
            with self._state:
                self._ended = True
                self._state.notify_all()
            self._thread.join()

    @property
    def ended(self) -> bool:
        """Whether nothing more can be written."""
        return self._ended

    def abandon(self) -> None:
        """End the thread without asking the others, and give up what is under way, for them too."""
        with self._state:
            self._ended = True
            self._state.notify_all()
        self._pace.give_up()
        self._peers.hang_up()
        self._thread.join()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
        if self._ended:
            raise TradewindError(f"the saver of {self.root} has ended; make another one")

    def _give_up(self) -> None:
        if self._wanted is not None:
            self._memory.release(self._wanted)
            self._wanted = None
            self.skipped += 1

    def _drain(self) -> None:
        with self._state, self._pace.hurried():
            self._draining += 1
            self._state.notify_all()
            self._state.wait_for(lambda: not self._draining or self._ended)

    def _run(self) -> None:
        try:
            while self._round():
                pass
        except Exception as error:  # noqa: BLE001 - the training thread sees it at its next call
            with self._state:
                self._error = TradewindError(f"checkpoints can no longer be written: {error}")
                self._error.__cause__ = error
            # Or the others would wait for this one.
            self._peers.hang_up()
        with self._state:
            self._give_up()
            self._ended = True
            self._state.notify_all()

    def _round(self) -> bool:
        """Agree with the others on what to do next, and do it; False at the end."""
        with self._state:
            self._state.wait_for(lambda: self._wanted or self._draining or self._ended)
            if self._ended:
                return False
            mine = self._wanted.header.step if self._wanted else None
        proposals = self._peers.gather(mine)
        if None in proposals:
            self._rest_of_all(all(step is None for step in proposals))
        elif all(step == mine for step in proposals):
            self._agreed(proposals[0])
        else:
            newest = max(proposals)
            with self._state:
                # A worker that is behind comes to the newest step soon, and replaces what it wanted.
                self._state.wait_for(lambda: self._draining or self._is_wanted(newest))
                if not self._is_wanted(newest):
                    self._give_up()
        return True

    def _is_wanted(self, at_least: int) -> bool:
        return self._wanted is not None and self._wanted.header.step >= at_least

    def _rest_of_all(self, everyone: bool) -> None:
        """Someone has skipped what others want, and waits: nobody writes. When all wait, they may go on."""
        with self._state:
            if everyone:
                self._draining = 0
                self._state.notify_all()
            else:
                self._give_up()

    def _agreed(self, step: int) -> None:
        with self._state:
            staged = self._wanted if self._is_wanted(step) and not self._is_wanted(step + 1) else None
            self._writing = staged is not None
        # Between the proposals and here a worker may have come to want a newer step.
        if all(self._peers.gather(staged is not None)) and staged is not None:
            self._write(staged)
        with self._state:
            self._writing = False

    def _write(self, staged: Staged) -> None:
        began, rested_s, step = time.monotonic(), self._pace.rested_s, staged.header.step
        with self._state:
            self._wanted = None
        try:
            folder, size = commit(
                self.root, step, self._peers, lambda folder: write_image(folder, staged, self._pace)
            )
        except TradewindError as error:
            with self._state:
                self._error = error
            return
        finally:
            self._memory.release(staged)
        with self._state:
            seconds, rested_s = time.monotonic() - began, self._pace.rested_s - rested_s
            self._saved.append(
                Saved(step=step, folder=folder, bytes=size, seconds=seconds, rested_s=rested_s)
            )
        if self._keep is not None and self._peers.rank == 0:
            self._prune(self._keep, step)

    def _prune(self, keep: int, step: int) -> None:
        try:
            prune(self.root, keep=keep, step=step)
        except OSError as error:
            with self._state:
                self._error = TradewindError(f"old checkpoints in {self.root} cannot be dropped: {error}")


def write_image(folder: Path, staged: Staged, pace: Pace = UNHURRIED) -> tuple[dict[str, Entry], str]:
    """Write those files of an image that its rank writes, as they lie, and seal it; see `writer.Writing`."""
    header, view = staged.header, staged.view
    seal = image.read_seal(view, header)
    written: dict[str, Entry] = {}
    found: list[bytes] = []
    taken = 0
    for name, at, size in header.files:
        count = sums.num_chunks(size)
        known = seal[taken : taken + count] if seal else None
        taken += count
        if parts.writes(header.rank, header.world, name):
            blocks = files.blocks_of(view, at, size)
            written[name] = files.write_blocks(folder / name, size, blocks, known=known, pace=pace)
            found.append(bytes.fromhex(written[name]["sums"]))
        elif seal is None:
            found += sums.of(view[at : at + size], pace)
    if seal is None:
        image.write_seal(view, header, found)
    return written, header.layout
