"""Which GPUs the model workers will see: asked of torch in a process of its own, as the front process loads none.

`python -m tradewind.serve.gpus` prints them. It is torch that numbers them, by the driver and the environment, and the
workers see the same.
"""

import subprocess
import sys
from typing import Any

import msgspec

from tradewind.errors import SpecError

ADVICE = "serve with `device: cpu`, or where a GPU is"
LOOK_S = 120.0
"""Seconds that a driver has to answer; one that takes longer will not serve either."""


class Gpu(msgspec.Struct, frozen=True):
    """One GPU, `cuda:<index>`."""

    index: int
    name: str = ""
    pci: str = ""
    """Its address, such as 0000:3b:00.0; "" where torch does not say."""


class Seen(msgspec.Struct, frozen=True):
    """The GPUs, or why there are none."""

    gpus: tuple[Gpu, ...] = ()
    why: str = ""


def find() -> tuple[Gpu, ...]:
    """Return the GPUs that a process started from here sees. Raises SpecError, which says what to do, for none."""
    command = [sys.executable, "-m", "tradewind.serve.gpus"]
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=LOOK_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise SpecError(f"device: cuda: the driver did not answer within {LOOK_S:.0f} s; {ADVICE}") from None
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise SpecError(f"device: cuda: looking for GPUs failed: {''.join(last)}; {ADVICE}")
    return chosen(msgspec.json.decode(done.stdout, type=Seen))


def chosen(seen: Seen) -> tuple[Gpu, ...]:
    """Return the GPUs that were seen. Raises SpecError for none."""
    if not seen.gpus:
        raise SpecError(f"device: cuda: {seen.why}; {ADVICE}")
    return seen.gpus


def look(torch: Any) -> Seen:
    """Return what this torch sees."""
    if not torch.backends.cuda.is_built():
        return Seen(why=f"torch {torch.__version__} is built without CUDA, install a build that has it")
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return Seen(why=f"no GPU can be used: {str(error).strip().splitlines()[0]}")
    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    gpus = tuple(Gpu(i, p.name, _address(p)) for i, p in enumerate(properties))
    return Seen(gpus, "" if gpus else "no GPU is visible here (CUDA_VISIBLE_DEVICES?)")


def _address(properties: Any) -> str:
    """The address as /sys has it; "" where this torch does not know."""
    parts: list[Any] = [getattr(properties, f"pci_{part}_id", None) for part in ("domain", "bus", "device")]
    return "" if None in parts else "{:04x}:{:02x}:{:02x}.0".format(*parts)


if __name__ == "__main__":
    import torch

    sys.stdout.buffer.write(msgspec.json.encode(look(torch)))
