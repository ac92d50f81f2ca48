"""Training state in tiers, each whole or absent, without pickle.

`Memory` keeps the newest steps of a host's workers in shared memory, where they outlive the workers.
`Saver` writes staged steps to disk from a thread of its own; `save` writes one at once; `mirror` keeps
copies of what is staged in another host's memory. `load` reads a
checkpoint for any number of workers, and `Memory.load` what is staged. Why: docs/decisions/0003.

State is nested dicts, lists and tuples of tensors, numbers and strings. `shared` is what all workers
hold alike, or have a cut of (`Rows`, or DTensors with `Shard(0)` on a mesh of one dimension); `own` is
each worker's.

**On disk** a checkpoint is a folder `step-000000000123/`, made under another name and renamed when it is
whole:

- `shared.json`, `rank00000.json`: the trees. A tensor stands in them as `{"$tensor": "model.weight"}`;
  what JSON lacks is an object with one key that begins with `$` (see `tree`).
- `shared-00000-of-00002.safetensors`: the shared tensors that rank 0 of 2 wrote, as any safetensors reader
  opens them. A whole tensor has the name that the tree gives it. Rows `a` to `b` of a tensor, when it is
  cut over the workers, or large beside one worker's part, are `name[a:b]`.
- `rank00000.safetensors`: the tensors of a rank's own state.
- `manifest.json`: step, world, and for every file its size and a checksum (XXH3, 128 bits) of every 4 MiB;
  closed by a sha256 of itself. It is written last.

**In memory** a worker has two or three files `local0-0.image`, each with a header and then the files of
that worker exactly as the disk would hold them (see `image`). Writing a checkpoint is copying out of one.
"""

from tradewind.train.checkpoint.background import Saved, Saver
from tradewind.train.checkpoint.loaded import Loaded
from tradewind.train.checkpoint.manifest import Manifest
from tradewind.train.checkpoint.memory import Memory
from tradewind.train.checkpoint.reader import latest, load, steps, verify
from tradewind.train.checkpoint.rows import Rows
from tradewind.train.checkpoint.slot import NoRoomError
from tradewind.train.checkpoint.writer import prune, save

__all__ = [
    "Loaded",
    "Manifest",
    "Memory",
    "NoRoomError",
    "Rows",
    "Saved",
    "Saver",
    "latest",
    "load",
    "prune",
    "save",
    "steps",
    "verify",
]
