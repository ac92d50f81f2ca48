"""Committed state in shared memory: it outlives the worker, and the next one starts from it."""

import itertools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tradewind.errors import IntegrityError, TradewindError
from tradewind.train.checkpoint import copies, image, sums
from tradewind.train.checkpoint.copying import copy_all, gpus_of, threads_for
from tradewind.train.checkpoint.layout import Layout, State
from tradewind.train.checkpoint.loaded import Loaded
from tradewind.train.checkpoint.mapped import Checking
from tradewind.train.checkpoint.pace import SHARE, UNHURRIED, Pace
from tradewind.train.checkpoint.parts import Worker
from tradewind.train.checkpoint.recall import Recall
from tradewind.train.checkpoint.restore import ranks_needed, restore
from tradewind.train.checkpoint.slot import Slot

_SEALED_AT_ONCE = 1 << 20
"""Up to so many bytes, hashing takes a tenth of a millisecond, less than handing it to another thread."""


@dataclass
class Staged:
    """An image that is not overwritten until it is released."""

    header: image.Header
    view: memoryview
    slot: Slot
    seals: bool = False
    """Whether who pinned it seals it."""


class Memory:
    """The newest steps of this host's workers, as files in a folder that lives in memory (`/dev/shm`).

    Every worker of the host makes one over the same folder and stages after the same steps. What all
    hold alike is divided among the workers of the host, so each copies its part; what is cut over the
    workers (DTensors, `Rows`), and `own`, each stages itself. An image that is being written is not
    valid, and the one before it stays, so the newest step that all workers have staged is always
    there, provided that no worker starts a stage before all have ended the one before (any collective
    in between sees to it).

    Images of another `generation` never form a set with these: give every start of the workers its
    own, the same on all of them (the attempt's number), so that a step that was done again after a
    failure is not mixed with what was staged before it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rank: int,
        world: int,
        local_rank: int,
        local_world: int,
        generation: int = 0,
    ) -> None:
        self.folder = folder
        self.worker = Worker(rank=rank, world=world, local_rank=local_rank, local_world=local_world)
        self._generation = generation
        self._threads = threads_for(local_world)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._calm = threading.Event()
        """Set while nothing is being staged: sealing makes way for it."""
        self._recall = Recall()
        self._layout: Layout | None = None
        self._targets: dict[Slot, tuple[Layout, int, list[torch.Tensor]]] = {}
        self._spare: Future[Slot] | None = None
        self._gpu: torch.device | None = None
        """Where state is copied from, unless all of it is in host memory."""
        self._seal_pace, self._make_pace = Pace(SHARE), Pace(SHARE)
        # Two, because a stage may wait for memory, and sealing waits for the end of the stage.
        self._making = ThreadPoolExecutor(1, thread_name_prefix="tradewind-memory")
        self._sealing = ThreadPoolExecutor(1, thread_name_prefix="tradewind-seal")
        self._num_staged = 0
        self._loaded: int | None = None
        self._checking: Checking | None = None
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._slots = [Slot(path) for path in sorted(folder.glob(f"local{local_rank}-*{image.SUFFIX}"))]
        self._borrowed = list(folder.glob(f"borrowed{local_rank}-*"))
        self._give_back()  # What a process that was killed had borrowed.

    def stage(self, step: int, shared: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> None:
        """Copy the state of a committed step into memory; on return the tensors may be changed.

        `shared` is what all workers hold alike or have a cut of, `own` is this worker's. Steps of the
        same and later numbers that were staged before are forgotten: training did not go on from them.
        Raises a NoRoomError when the file system has no room, another TradewindError when the state cannot
        be stored.
        """
        self.check()
        self._give_back()
        self._calm.clear()
        try:
            with torch.no_grad():
                slot, header = self._copy(step, State.take(self.worker.rank, shared, own or {}, self._recall))
            slot.commit(header)
            self._after_stage(slot, header)
        finally:
            self._calm.set()

    def _copy(self, step: int, state: State) -> tuple[Slot, image.Header]:
        if self._layout is None or not self._layout.fits(state):
            self._layout = Layout.plan(self.worker, state)
        slot = self._take_slot(step, self._layout.size)
        with self._lock:
            slot.begin(self._layout.size)
        sources = self._layout.sources(state)
        self._gpu = min(gpus_of(sources), key=str, default=None)
        if self._gpu is not None:
            slot.lock_pages(self._gpu)
        copy_all(self._places(slot, self._layout), sources, self._threads)
        return slot, self._header(step, self._layout, _write_trees(slot.view, self._layout, state))

    def _places(self, slot: Slot, layout: Layout) -> list[torch.Tensor]:
        known = self._targets.get(slot)
        if known is None or known[0] is not layout or known[1] != slot.version:
            for file in layout.files:
                slot.view[file.at : file.at + len(file.head)] = file.head
            known = (layout, slot.version, layout.targets(torch.from_numpy(slot.bytes)))
            self._targets[slot] = known
        return known[2]

    def _header(self, step: int, layout: Layout, files: tuple[tuple[str, int, int], ...]) -> image.Header:
        return image.Header(
            step=step,
            generation=self._generation,
            rank=self.worker.rank,
            world=self.worker.world,
            local_rank=self.worker.local_rank,
            local_world=self.worker.local_world,
            layout=layout.digest,
            seal_at=layout.seal_at,
            files=files,
        )

    def _take_slot(self, step: int, size: int) -> Slot:
        with self._lock:
            before = [slot for slot in self._slots if self._is_before(slot.header, step)]
            newest = max(before, key=_age, default=None)
            free = [slot for slot in self._slots if not slot.pins and slot is not newest]
            for slot in free:
                if slot not in before:
                    slot.blank()
        for slot in sorted(free, key=_age):
            if not slot.is_read():
                return slot
            self._slots.remove(slot)
            self._targets.pop(slot, None)
            slot.discard()
        return self._new_slot(size)

    def _is_before(self, header: image.Header | None, step: int) -> bool:
        """Whether training came to `step` through this image: it is what to start from until that is staged."""
        if header is None:
            return False
        again = header.step == step == self._loaded and header.generation != self._generation
        return header.step < step or again

    def _new_slot(self, size: int) -> Slot:
        pending, self._spare = self._spare, None
        if pending is None:
            slot = self._make_slot(self._unused(), size, UNHURRIED)
        else:
            with self._make_pace.hurried():
                slot = pending.result()
        self._slots.append(slot)
        return slot

    @staticmethod
    def _make_slot(path: Path, size: int, pace: Pace, gpu: torch.device | None = None) -> Slot:
        slot = Slot(path)
        slot.begin(size, pace)
        slot.touch(pace)
        if gpu is not None:
            slot.lock_pages(gpu)
        return slot

    def _unused(self) -> Path:
        taken = {slot.path for slot in self._slots}
        names = (f"local{self.worker.local_rank}-{index}{image.SUFFIX}" for index in itertools.count())
        return next(self.folder / name for name in names if self.folder / name not in taken)

    def _reserve(self, size: int, more: int = 0) -> None:
        """Get the memory of the next slot while training goes on: the kernel takes long to give it."""
        needed = 2 + more + sum(slot.pins > 0 for slot in self._slots)
        if self._spare is None and len(self._slots) < needed:
            self._spare = self._making.submit(
                self._make_slot, self._unused(), size, self._make_pace, self._gpu
            )

    def _after_stage(self, slot: Slot, header: image.Header) -> None:
        # What is being read will not be overwritten: soon there must be another slot.
        read = self._loaded is not None and any(other.is_read() for other in self._slots)
        self._reserve(slot.size, more=int(read))
        if sum(size for _, _, size in header.files) <= _SEALED_AT_ONCE:
            found = [sums.of_chunk(slot.view[start:stop]) for start, stop in image.chunk_spans(header)]
            image.write_seal(slot.view, header, found)
        else:
            self._sealing.submit(self._seal, slot, header)
        self._num_staged += 1
        if self._num_staged == 2 and self.worker.local_rank == 0:
            self._drop_strangers()

    def _seal(self, slot: Slot, header: image.Header) -> None:
        view, found = slot.view, []
        for start, stop in image.chunk_spans(header):
            self._calm.wait()
            if slot.header is not header or slot.claims or self._closing.is_set():
                return  # Who writes it seals it, or a newer step was staged meanwhile, and is sealed instead.
            found.append(sums.of_chunk(view[start:stop], self._seal_pace))
        with self._lock:
            if slot.header is header:
                image.write_seal(view, header, found)

    def settle(self) -> None:
        """Wait until the newest image is sealed and the memory to come is there."""
        with self._make_pace.hurried(), self._seal_pace.hurried():
            for threads in (self._making, self._sealing):
                threads.submit(lambda: None).result()

    def _drop_strangers(self) -> None:
        """Free what a larger world left here; all workers have staged once, so nobody starts from it."""
        for path in self.folder.glob(f"local*{image.SUFFIX}"):
            if int(path.name.removeprefix("local").split("-")[0]) >= self.worker.local_world:
                path.unlink(missing_ok=True)

    def steps(self) -> list[int]:
        """Steps that can be loaded: this host has a valid image of each of its workers. Oldest first."""
        return sorted(self._sets())

    def _sets(self) -> dict[int, copies.Set]:
        # Of two sets of a step the later generation's counts.
        found = sorted(copies.own(self.folder), key=lambda one: one[0][1].generation)
        return {one[0][1].step: one for one in found}

    def load(self, step: int, *, mesh: Any = None) -> Loaded:
        """The state of a step, for this worker, whatever number of workers staged it.

        Where that number was another one, the copies of the host before this one serve too, and what was borrowed.

        Its tensors lie in the images themselves and nothing is copied. They are this process's own to
        read and change; but they keep the image's memory while they live, so copy what is to live long.
        What was cut over the workers comes as `Rows` again, and DTensors on `mesh` (whole tensors
        without one). Raises IntegrityError when the step is not here, or not as it was staged.

        A large image is verified in other threads while its content is put to use; `check` waits for
        them, and so does the next `stage`: nothing is staged that came from damaged memory.
        """
        images = self._sets().get(step)
        if images is None:
            raise IntegrityError(f"{self.folder} has no complete step {step}; it has {self.steps()}")
        if images[0][1].world != self.worker.world:
            images += self._others(images)  # Ranks have moved, and what is cut over the workers is cut anew.
        loaded, self._checking = restore(images, self.worker, mesh)
        if sum(size for _, header in images for _, _, size in header.files) <= _SEALED_AT_ONCE:
            self.check()
        self._loaded = step
        return loaded

    def _others(self, images: copies.Set) -> copies.Set:
        """What else is here of the state that this host's images are of."""
        found = [one for many in copies.held(self.folder) for one in many]
        found += [(path, header) for path in self._borrowed if (header := image.peek(path)) is not None]
        what = copies.of(images[0][1])
        return [(path, header) for path, header in found if copies.of(header) == what]

    def lacks(self, what: copies.Of) -> set[int]:
        """Whose images of a state that another number of workers staged this one needs, and does not find here."""
        here = copies.find(self.folder, what)
        # Any will do: what is cut, and how, is alike in all.
        needed = ranks_needed(*next(iter(here.values())), self.worker) if here else set[int]()
        return needed - here.keys()

    def check(self) -> None:
        """Wait until what was loaded is verified: every worker its share of the host's images.

        Raises IntegrityError, on the worker whose share it is, when an image is damaged. Its step is
        not offered again, so whoever loads next gets the step before.
        """
        checking, self._checking = self._checking, None
        if checking is not None:
            checking.finish()

    def pin(self, step: int, *, seals: bool = False) -> Staged:
        """Keep this worker's image of a step until `release`; who `seals` it computes its checksums anyway."""
        with self._lock:
            having = [slot for slot in self._slots if slot.header is not None and slot.header.step == step]
            slot = max(having, key=_age, default=None)
            if slot is None or slot.header is None:
                raise TradewindError(f"step {step} is not staged in {self.folder}: stage it first")
            slot.pins += 1
            slot.claims += seals
        self._reserve(slot.size)
        return Staged(slot.header, slot.view, slot, seals)

    def release(self, staged: Staged) -> None:
        """Let the image be overwritten."""
        with self._lock:
            staged.slot.pins -= 1
            staged.slot.claims -= staged.seals
        if (
            staged.seals
            and not self._closing.is_set()
            and image.read_seal(staged.view, staged.header) is None
        ):
            self._sealing.submit(self._seal, staged.slot, staged.header)  # It was not written to its end.

    def take_in(self, receive: Callable[[Path], object]) -> None:
        """Have an image of this worker's that was elsewhere put into a file here."""
        path = self._unused()
        receive(path)
        with self._lock:
            self._slots.append(Slot(path))

    def borrow(self, receive: Callable[[Path], object]) -> None:
        """Have an image of another worker's put into a file here, until the next stage."""
        path = self.folder / f"borrowed{self.worker.local_rank}-{len(self._borrowed)}{image.SUFFIX}"
        receive(path)
        self._borrowed.append(path)

    def _give_back(self) -> None:
        for path in self._borrowed:
            path.unlink(missing_ok=True)
        self._borrowed = []

    def clear(self) -> None:
        """Remove the images of all workers of this host, none of which stages any more."""
        self.close()
        for path in self.folder.glob(f"local*{image.SUFFIX}"):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Stage no more. The images stay."""
        self._closing.set()
        self._give_back()
        for pace in (self._seal_pace, self._make_pace):
            pace.hurry.set()
        self._making.shutdown()
        self._sealing.shutdown()
        self._targets.clear()
        if self._spare is not None and self._spare.exception() is None:
            self._slots.append(self._spare.result())
        for slot in self._slots:
            slot.close()
        self._slots, self._spare = [], None


def _age(slot: Slot) -> tuple[int, int]:
    header = slot.header
    return (header.generation, header.step) if header is not None else (-1, -1)


def _write_trees(view: memoryview, layout: Layout, state: State) -> tuple[tuple[str, int, int], ...]:
    """Put the JSON files into an image; all of its files as a header lists them."""
    files = []
    for name, text in state.trees.items():
        at, _ = layout.trees[name]
        view[at : at + len(text)] = text
        files.append((name, at, len(text)))
    return (*files, *((file.name, file.at, file.size) for file in layout.files))
