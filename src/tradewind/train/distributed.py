"""Who am I among the workers, and the small agreements that workers make with each other."""

import contextlib
import json
import os
from collections.abc import Sequence, Set
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from torch.distributed import AllreduceOptions

from tradewind.errors import SpecError
from tradewind.train import generation
from tradewind.train.meeting import await_rank_0


def rank() -> int:
    """This worker's rank: the process group's, else `RANK`, else 0."""
    return dist.get_rank() if _initialized() else int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of workers: the process group's, else `WORLD_SIZE`, else 1."""
    return dist.get_world_size() if _initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """This worker's place and device; leaving its `with` block takes the process group down."""

    rank: int
    world: int
    local_rank: int
    device: torch.device

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a failure the peers may be gone, and taking the group down could wait for them.
        if kind in (None, SystemExit) and _initialized():
            leave_together()


def leave_together() -> None:
    """Take the process group down once every worker is here, and has finished what needs it.

    Gloo ends a process (SIGABRT) whose peer closes its connections while it is taking down its own.
    """
    generation.part()
    with contextlib.suppress(RuntimeError):  # A peer has died: there is nobody to wait for.
        dist.barrier()
    dist.destroy_process_group()


def distributed(*, device: str | None = None, backend: str | None = None) -> Distributed:
    """Join the process group when `WORLD_SIZE` is above 1.

    A worker takes the GPU of its local rank and NCCL, or where there are no GPUs the CPU and gloo. `device`: "cpu", "cuda"
    for the GPU of its local rank or nothing, or one GPU, such as "cuda:0"; workers that share one need
    `backend="gloo"`, as NCCL refuses to. Raises SpecError where the host shows fewer GPUs than it has workers.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if place == torch.device("cuda"):
        place = torch.device("cuda", _own_gpu(local_rank))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not _initialized():
        await_rank_0(int(os.environ.get("RANK", "0")))
        with generation.connecting():
            dist.init_process_group(backend or ("nccl" if place.type == "cuda" else "gloo"))
    return Distributed(rank=rank(), world=world_size(), local_rank=local_rank, device=place)


def _own_gpu(local_rank: int) -> int:
    """The number of the GPU of a worker of this host."""
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise SpecError(
            f"local rank {local_rank} has no GPU: this host shows {count} (CUDA_VISIBLE_DEVICES?); start as many "
            'workers a host as it has GPUs, or pass device="cpu" to train.distributed()'
        )
    return local_rank


class Peers:
    """The workers that train together, as seen by one of them; alone when `world` is 1.

    Messages are JSON over a gloo group of their own, so they neither unpickle anything nor
    wait behind gradients on the device's communicator.
    """

    _connections: Set[int] = frozenset()

    def __init__(self) -> None:
        self.rank = rank()
        self.world = world_size()
        self._group: Any = None
        if self.world > 1:
            if not _initialized():
                raise SpecError(
                    f"WORLD_SIZE is {self.world} but there is no process group: call "
                    "train.distributed() (or torch.distributed.init_process_group) before train.Loop"
                )
            with generation.connecting() as self._connections:
                self._group = dist.new_group(backend="gloo")

    def hang_up(self) -> None:
        """Have whoever waits in this group, here or on another worker, leave it with an error, now and later."""
        generation.hang_up(self._connections)

    def gather(self, message: Any) -> list[Any]:
        """Every worker's message, by rank, on every worker."""
        if self.world == 1:
            return [message]
        body = torch.frombuffer(bytearray(json.dumps(message).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        dist.all_gather(sizes, torch.tensor([body.numel()]), group=self._group)
        longest = max(int(size) for size in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: body.numel()] = body
        bodies = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(bodies, padded, group=self._group)
        return [
            json.loads(part[: int(size)].numpy().tobytes()) for part, size in zip(bodies, sizes, strict=True)
        ]

    def from_first(self, message: Any) -> Any:
        """Rank 0's message, on every worker; what others pass is ignored."""
        return self.gather(message if self.rank == 0 else None)[0]

    def start_largest(self, values: Sequence[int]) -> Any:
        """Begin asking for the largest of the workers' values, place by place; give the result to `largest`."""
        votes, asked = torch.tensor(values, dtype=torch.int32), AllreduceOptions()
        asked.reduceOp = dist.ReduceOp(dist.ReduceOp.MAX)
        # Not by dist.all_reduce: what that does besides takes as long as the exchange, in a step's cold caches.
        return votes, self._group.allreduce([votes], asked)

    @staticmethod
    def largest(pending: Any) -> list[int]:
        """The answer to a question begun by `start_largest`: the same on every worker."""
        votes, work = pending
        work.wait()
        found: list[int] = votes.tolist()
        return found
