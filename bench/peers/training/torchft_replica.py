"""One replica group of one worker under torchft 0.2.0: its Manager, gloo group and optimizer wrapper.

Gradients are averaged by `Manager.allreduce`, in one bucket, and not by torchft's DistributedDataParallel: when
gloo reports a lost peer, the latter's hook fails an assertion (`ddp.py`, `_comm_hook`) and the survivor ends
too, which is the very thing to be measured. Without DDP a replica also starts faster.
"""

import argparse
import os

from bench.peers.training.stamps import Stamps

stamp = Stamps(int(os.environ["REPLICA_GROUP_ID"]))
stamp("enter")

from datetime import timedelta  # noqa: E402  The stamp comes before what is slow to import.

import torch  # noqa: E402
from torch.distributed import TCPStore  # noqa: E402
from torchft import Manager, Optimizer, ProcessGroupGloo  # noqa: E402

from bench.peers.training import task  # noqa: E402


def average_gradients(manager: Manager, model: torch.nn.Module) -> None:
    """Over all replicas that take part; after an error the manager discards the step."""
    gradients = [parameter.grad for parameter in model.parameters()]
    bucket = torch.cat([gradient.reshape(-1) for gradient in gradients])
    manager.allreduce(bucket).wait()
    for gradient, part in zip(gradients, bucket.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lighthouse", required=True)
    parser.add_argument("--timeout-s", type=float, required=True)
    parser.add_argument("--heartbeat-ms", type=int, required=True)
    args = parser.parse_args()
    stamp("imported")
    rank, timeout = int(os.environ["REPLICA_GROUP_ID"]), timedelta(seconds=args.timeout_s)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    model = task.make_model()
    optimizer = task.make_optimizer(model)
    manager = Manager(
        pg=ProcessGroupGloo(timeout=timeout),
        state_dict=lambda: {"model": model.state_dict(), "optimizer": optimizer.state_dict()},
        load_state_dict=lambda state: (
            model.load_state_dict(state["model"]),
            optimizer.load_state_dict(state["optimizer"]),
        ),
        min_replica_size=1,
        timeout=timeout,
        quorum_timeout=timedelta(seconds=30),
        connect_timeout=timeout,
        rank=0,
        world_size=1,
        store_addr="127.0.0.1",
        store_port=store.port,
        lighthouse_addr=args.lighthouse,
        replica_id=f"replica_{rank}",
        hostname="127.0.0.1",
        heartbeat_interval=timedelta(milliseconds=args.heartbeat_ms),
    )
    stamp("joined")
    managed = Optimizer(manager, optimizer)
    data, work = task.make_data(), task.Work(task.work_of_environment())
    stamp("built")
    while True:
        step = manager.current_step()
        stamp("begin", step + 1)
        managed.zero_grad()
        work()
        task.loss_of(model, data[task.rows_of(step, rank, 2)]).backward()
        average_gradients(manager, model)
        managed.step()
        if manager.current_step() > step:
            stamp("commit", manager.current_step())


if __name__ == "__main__":
    main()
