"""A named cluster: how it is reached, and what holds for every run there."""

import re
from typing import Annotated, Literal

import msgspec

from tradewind.errors import SpecError
from tradewind.spec import Placement, Spec, load_yaml
from tradewind.spec.placement import Count

KIND = "k8s"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Volume(Spec, frozen=True, kw_only=True):
    """A PersistentVolumeClaim that all hosts mount (ReadWriteMany where there is more than one)."""

    claim: Annotated[str, msgspec.Meta(min_length=1)]
    path: Annotated[str, msgspec.Meta(pattern="^/.+")]
    read_only: bool = False


class Context(Spec, frozen=True, kw_only=True):
    """One cluster, or one corner of it; `contexts/NAME.yaml` in Tradewind's home, for `--on k8s:NAME`."""

    kubeconfig: str | None = None
    """File; `$KUBECONFIG`, the pod's own credentials or `~/.kube/config` when None."""
    context: str | None = None
    """Context of the kubeconfig; its current one when None."""
    namespace: str | None = None
    """The kubeconfig context's, else `default`, when None."""
    placement: Placement = Placement()
    gang: Literal["auto", "native", "kueue", "barrier"] = "auto"
    """How all hosts start or none: `auto` takes the best that the cluster has."""
    start_deadline_s: Annotated[int, msgspec.Meta(ge=1)] = 900
    """How long hosts that did start wait for the others where nothing better is there."""
    volumes: tuple[Volume, ...] = ()
    run_root: str | None = None
    """Folder on one of `volumes` that holds a folder for each run; without it checkpoints end with their pod."""
    blobs: str | None = None
    """Object store or folder on a volume from which pods fetch code too large for ConfigMaps."""
    secrets: tuple[str, ...] = ()
    """Secrets whose keys become environment variables: credentials, `TRADEWIND_STORE`."""
    gpu_resource: str = "nvidia.com/gpu"
    gpu_label: str = "nvidia.com/gpu.product"
    """Node label whose value is the GPU type."""
    prices: dict[str, Annotated[float, msgspec.Meta(ge=0)]] = msgspec.field(default_factory=dict)
    """What one unit costs for an hour, by resource (of memory a GiB) or by GPU type; for `tradewind plan`."""
    python: str = "python"
    """Python of the image."""
    user_id: Annotated[int, msgspec.Meta(ge=1)] = 1000
    """Whom pods run as; never root."""
    port: Annotated[int, msgspec.Meta(ge=1024, le=65535)] = 29400
    """Where agents listen for each other."""
    keep_s: Count | None = 7 * 86400
    """How long the objects of a run stay after it ended; for ever when None."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.run_root and not any(is_below(self.run_root, volume.path) for volume in self.volumes):
            raise SpecError(
                f"Context: run_root: {self.run_root} is on none of `volumes`; give a folder under one's path"
            )


def is_below(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies in it."""
    return f"{path.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")


def load_context(on: str) -> Context:
    """The context that `--on k8s` or `--on k8s:NAME` means.

    Without a name it is `contexts/k8s.yaml` where that exists, else what the kubeconfig says. Raises
    SpecError for a name without a file, and for what is wrong in the file.
    """
    from tradewind.store import home

    kind, separator, name = on.partition(":")
    if kind != KIND or (separator and not NAME.fullmatch(name)):
        raise SpecError(f"--on {on}: there is no such place; write k8s, or k8s:NAME for contexts/NAME.yaml")
    path = home() / "contexts" / f"{name or KIND}.yaml"
    if path.exists():
        return load_yaml(path, Context)
    if not separator:
        return Context()
    known = sorted(file.stem for file in path.parent.glob("*.yaml"))
    raise SpecError(
        f"--on {on}: there is no {path}; write it, or use one of: {', '.join(known) or 'none is there yet'}"
    )
