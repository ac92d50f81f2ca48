"""A tiny training script that leaves behind all that is needed to say whether a failure did any harm."""

SAMPLES, BATCH, EPOCHS = 96, 16, 4
STEPS_PER_EPOCH = SAMPLES // BATCH
STEPS = STEPS_PER_EPOCH * EPOCHS

SCRIPT = (
    f"""
import inspect, json, os, sys, time
import numpy as np, torch
import torch.distributed as dist
from pathlib import Path
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from safetensors.torch import save_file
from tradewind import train

SAMPLES, BATCH, EPOCHS, STEPS_PER_EPOCH = {SAMPLES}, {BATCH}, {EPOCHS}, {STEPS_PER_EPOCH}
"""
    + """
class Tally(nn.Module):
    # How often each sample went into the committed state, by epoch: part of that state itself.
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(EPOCHS, SAMPLES, dtype=torch.int64))

    def count(self, epoch, indices, world):
        mine = torch.zeros(SAMPLES, dtype=torch.int64)
        mine.index_add_(0, torch.as_tensor(indices), torch.ones(len(indices), dtype=torch.int64))
        if world > 1:
            dist.all_reduce(mine)
        self.seen[epoch] += mine

out = Path(sys.argv[1])
# Where state is also staged into memory: after every step, so that at most one is done again.
staging = {"max_recompute": 1} if "max_recompute" in inspect.signature(train.Loop).parameters else {}
with train.distributed() as ctx:
    train.seed_everything(7)
    features = torch.randn(SAMPLES, 8, generator=torch.Generator().manual_seed(1))
    target = features.sum(1, keepdim=True)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 1))
    wrapped = DistributedDataParallel(model) if ctx.world > 1 else model
    optimizer = torch.optim.AdamW(
        [{"params": model[0].parameters(), "lr": 1e-2}, {"params": model[3].parameters()}]
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=40)
    tally = Tally()
    loop = train.Loop(
        model=wrapped,
        optimizer=optimizer,
        scheduler=scheduler,
        extra=tally,
        data=train.Batches(SAMPLES, BATCH, seed=3, epochs=EPOCHS),
        every_steps=5,
        **staging,
    )
    if loop.step == 0:
        torch.manual_seed(11 + ctx.rank)
    records = os.open(out / f"rank{ctx.rank}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for indices in loop:
        record = {"t": time.time(), "world": ctx.world, "step": loop.step + 1, "samples": indices.tolist()}
        os.write(records, json.dumps(record).encode() + b"\\n")
        tally.count(loop.step // STEPS_PER_EPOCH, indices, ctx.world)
        noise = float(np.random.rand()) * 1e-3
        loss = ((wrapped(features[indices]) - target[indices]) ** 2).mean() + noise * model[0].weight.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        loop.log(loss=loss)
        time.sleep(0.02)  # A step of some length, so that a fault lands in the step it is meant for.
    os.close(records)
    if ctx.rank == 0:
        save_file(model.state_dict() | {"tally": tally.seen}, out / "writing")
        os.replace(out / "writing", out / "final.safetensors")
"""
)
