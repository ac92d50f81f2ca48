"""What a training run asks for."""

from typing import Annotated

import msgspec

from tradewind.errors import SpecError
from tradewind.spec.base import Spec
from tradewind.spec.placement import Placement

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class Resources(Spec, frozen=True, kw_only=True):
    """What one worker needs; None leaves it to the place where it runs."""

    cpus: Positive | None = None
    memory_gib: Positive | None = None
    gpus: Count = 0
    gpu_type: str | None = None
    mig: str | None = None
    """Profile of the GPU slices that `gpus` counts, such as `1g.10gb`; whole GPUs when None."""
    shm_gib: Positive | None = None
    """Shared memory, where the memory tier and data loaders keep their bytes; part of `memory_gib`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mig and not self.gpus:
            raise SpecError(f"Resources: mig: {self.mig} says of which size slices are; say in gpus how many")
        if self.shm_gib and self.memory_gib and self.shm_gib > self.memory_gib:
            raise SpecError(
                f"Resources: shm_gib: {self.shm_gib:g} is more than memory_gib {self.memory_gib:g}, "
                "of which it is a part; ask for more memory"
            )


class RunSpec(Spec, frozen=True, kw_only=True):
    """One training job: a torchrun-compatible script, its arguments and its workers.

    `workers` counts those of all hosts, so that a script's result does not depend on how many hosts it got.
    """

    script: Annotated[str, msgspec.Meta(min_length=1)]
    args: tuple[str, ...] = ()
    workers: AtLeastOne = 1
    name: str | None = None
    env: dict[str, str] = msgspec.field(default_factory=dict)
    resources: Resources = Resources()
    max_restarts: Count = 3
    checkpoint_dir: str | None = None
    hosts: AtLeastOne = 1
    min_hosts: Count = 0
    """How few hosts may go on while others are lost; 0 waits for a lost one to be replaced."""
    lease_s: Annotated[float, msgspec.Meta(gt=0, le=2)] = 1.0
    """How long a host may be silent at least before it is given up, in seconds.

    Three times its longest silence of late counts if that is more; 2 s are always enough.
    """
    placement: Placement = Placement()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers % self.hosts:
            raise SpecError(
                f"RunSpec: workers: {self.workers} cannot be spread evenly over {self.hosts} hosts; "
                f"ask for a multiple of {self.hosts}"
            )

    @property
    def workers_per_host(self) -> int:
        """Worker processes on each host."""
        return self.workers // self.hosts
