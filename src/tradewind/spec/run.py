"""What a training run asks for."""

from typing import Annotated

import msgspec

from tradewind.spec.base import Spec

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class Resources(Spec, frozen=True, kw_only=True):
    """What one worker needs; None leaves it to the place where it runs."""

    cpus: Positive | None = None
    memory_gib: Positive | None = None
    gpus: Count = 0
    gpu_type: str | None = None


class RunSpec(Spec, frozen=True, kw_only=True):
    """One training job: a torchrun-compatible script, its arguments and its workers."""

    script: Annotated[str, msgspec.Meta(min_length=1)]
    args: tuple[str, ...] = ()
    workers: AtLeastOne = 1
    name: str | None = None
    env: dict[str, str] = msgspec.field(default_factory=dict)
    resources: Resources = Resources()
    max_restarts: Count = 3
    checkpoint_dir: str | None = None
