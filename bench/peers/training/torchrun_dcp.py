"""The training under torchrun: torch's DDP and its Distributed Checkpoint, as their documentation combines them."""

import argparse
import os

from bench.peers.training.stamps import Stamps

stamp = Stamps(int(os.environ["RANK"]))
stamp("enter")

import shutil  # noqa: E402  The stamp comes before what is slow to import.
from pathlib import Path  # noqa: E402

import torch.distributed as dist  # noqa: E402
import torch.distributed.checkpoint as dcp  # noqa: E402
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from bench.peers.training import task  # noqa: E402

KEEP = 2


class Training:
    """Model, optimizer and step, as Distributed Checkpoint's `Stateful`."""

    def __init__(self) -> None:
        self.model = DistributedDataParallel(task.make_model())
        self.optimizer = task.make_optimizer(self.model)
        self.step = 0

    def state_dict(self):  # type: ignore[no-untyped-def]
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "step": self.step}

    def load_state_dict(self, state) -> None:  # type: ignore[no-untyped-def]
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        self.step = state["step"]


def whole(root: Path) -> list[Path]:
    """Finished checkpoints, oldest first: a save writes its metadata last."""
    return sorted(folder.parent for folder in root.glob("step-*/.metadata"))


def restore(root: Path, training: Training) -> None:
    found = whole(root)
    if found:
        dcp.load({"training": training}, checkpoint_id=found[-1])


def save(root: Path, training: Training) -> None:
    dcp.save({"training": training}, checkpoint_id=root / f"step-{training.step:09d}")
    if dist.get_rank() == 0:
        for folder in whole(root)[:-KEEP]:
            shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="steps between checkpoints")
    args = parser.parse_args()
    stamp("imported")
    dist.init_process_group("gloo")
    stamp("joined")
    training, data, work = Training(), task.make_data(), task.Work(task.work_of_environment())
    stamp("built")
    restore(args.checkpoints, training)
    stamp("resumed", training.step)
    rank, world = dist.get_rank(), dist.get_world_size()
    while True:
        stamp("begin", training.step + 1)
        work()
        training.optimizer.zero_grad()
        task.loss_of(training.model, data[task.rows_of(training.step, rank, world)]).backward()
        training.optimizer.step()
        training.step += 1
        stamp("commit", training.step)
        if training.step % args.every == 0:
            save(args.checkpoints, training)


if __name__ == "__main__":
    main()
