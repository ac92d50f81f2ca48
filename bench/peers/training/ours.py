"""The training under `tradewind run`: torch's DDP (or FSDP2) and one `train.Loop`."""

import argparse
import os
import time

from bench.peers.training.stamps import Stamps

stamp = Stamps(int(os.environ["RANK"]))
stamp("enter")

from bench.peers.training import task  # noqa: E402  The stamp comes before what is slow to import.
from tradewind import train  # noqa: E402


def parallel(model, fsdp2: bool):  # type: ignore[no-untyped-def]
    """The model over both workers: replicated, or its parameters sharded over a mesh of two."""
    if fsdp2:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        return fully_shard(model, mesh=init_device_mesh("cpu", (int(os.environ["WORLD_SIZE"]),)))
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(model) if os.environ["WORLD_SIZE"] != "1" else model


def slow_down(work: task.Work, number: int) -> None:
    """Make a step ten times slower: on one rank of the two, every other time without burning its CPU."""
    if number % 2 == int(os.environ["RANK"]):
        started = time.perf_counter()
        work()
        one_s = time.perf_counter() - started
        if number % 4 < 2:
            time.sleep(9 * one_s)
            return
        for _ in range(9):
            work()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--max-recompute", type=int, help="steps between stagings into memory")
    parser.add_argument("--steps", type=int, help="steps after which it is done")
    parser.add_argument("--slow-every", type=int, default=0, help="steps from one that is ten times slower")
    parser.add_argument("--fsdp2", action="store_true")
    args = parser.parse_args()
    stamp("imported")
    with train.distributed(device=str(task.device()), backend="gloo"):
        stamp("joined")
        model = parallel(task.make_model(), args.fsdp2)
        optimizer, work = task.make_optimizer(model), task.Work(task.work_of_environment())
        stamp("built")
        samples = task.make_data()
        batches = train.Batches(task.SAMPLES, task.BATCH, fetch=lambda rows: samples[rows])
        loop = train.Loop(
            model=model,
            optimizer=optimizer,
            data=batches,
            max_recompute=args.max_recompute,
            max_steps=args.steps,
        )
        stamp("resumed", loop.step)
        for batch in loop:
            stamp("begin", loop.step + 1)
            work()
            if args.slow_every and (loop.step + 1) % args.slow_every == 0:
                slow_down(work, (loop.step + 1) // args.slow_every)
            optimizer.zero_grad()
            task.loss_of(model, batch).backward()
            optimizer.step()
            stamp("commit", loop.step + 1)


if __name__ == "__main__":
    main()
