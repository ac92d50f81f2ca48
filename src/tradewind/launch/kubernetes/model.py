"""How a model package gets into the pods that serve it: as an image, on a volume, or by its content."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tradewind.errors import SpecError
from tradewind.launch.kubernetes.code import Code
from tradewind.launch.kubernetes.context import Context, is_below
from tradewind.launch.tree import Entry, put_tree
from tradewind.names import MANIFEST

if TYPE_CHECKING:
    from tradewind.store import Blobs, Store

IMAGE, VOLUME = "oci://", "volume:"
MOUNT = "/model"
"""Where a package is in a pod, unless it lies on a volume of the context."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One package, as pods come by it; exactly one of `image`, `code` and a path on a volume says how."""

    name: str
    label: str
    """What people know it by: `recommender@3`, an image, a path."""
    path: str = MOUNT
    image: str | None = None
    code: Code | None = None


def find_model(
    reference: str, context: Context, store: "Store", blobs: "Blobs", name: str | None = None
) -> "tuple[Model, str]":
    """The model that `reference` means, still without its content, and the digest of that; "" where it has none.

    Raises SpecError for a path that is on no volume, NotFoundError for a model that the store does not know.
    """
    if reference.startswith(IMAGE):
        image = reference.removeprefix(IMAGE)
        short = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
        return Model(name=name or short, label=image, image=image), ""
    if reference.startswith(VOLUME):
        path = reference.removeprefix(VOLUME)
        if not any(is_below(path, volume.path) for volume in context.volumes):
            raise SpecError(
                f"model: {path} is on none of the context's volumes; give a folder under one's path"
            )
        return Model(name=name or Path(path).name, label=path, path=path), ""
    folder, label, own_name = located(reference, store)
    return Model(name=name or own_name, label=label), store_package(folder, blobs)


def located(reference: str, store: "Store") -> tuple[Path, str, str]:
    """The package's folder on this machine, its label, and its name."""
    folder = Path(reference)
    if (folder / MANIFEST).is_file():
        about = msgspec.json.decode((folder / MANIFEST).read_bytes())
        return folder, str(folder), str(about["name"])
    if "/" in reference:
        raise SpecError(f"{reference}: there is no package folder here (no {MANIFEST})")
    version = store.model_version(reference)
    return Path(version.path), f"{version.name}@{version.version}", version.name


def store_package(folder: Path, blobs: "Blobs") -> str:
    """Keep every file of a package as a blob; the digest of the manifest of all of them."""
    files = [Path(parent, name).relative_to(folder) for parent, _, names in os.walk(folder) for name in names]
    digests = blobs.put_files([folder / file for file in files])
    entries = [
        Entry(str(file), digest, (folder / file).stat().st_size)
        for file, digest in zip(files, digests, strict=True)
    ]
    return put_tree(entries, blobs)


def volumes(model: Model, config_map: str, context: Context) -> list[dict[str, Any]]:
    """The volumes by which pods get the package."""
    if model.image:
        return [{"name": "model", "image": {"reference": model.image, "pullPolicy": "IfNotPresent"}}]
    if model.code is None:
        return [
            {"name": f"data-{i}", "persistentVolumeClaim": {"claimName": v.claim, "readOnly": True}}
            for i, v in enumerate(context.volumes)
        ]
    maps = [config_map, *dict.fromkeys(model.code.names)]
    return [
        {"name": "parts", "projected": {"sources": [{"configMap": {"name": name}} for name in maps]}},
        {"name": "model", "emptyDir": {}},
    ]


def mounts(model: Model, context: Context) -> list[dict[str, Any]]:
    """Where the server sees the package."""
    if model.image or model.code is not None:
        return [{"name": "model", "mountPath": MOUNT, "readOnly": True}]
    return [
        {"name": f"data-{i}", "mountPath": v.path, "readOnly": True} for i, v in enumerate(context.volumes)
    ]
