"""What travels to a Ray cluster: the run's description and its code, as the package that is the job's folder."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tradewind.launch.kubernetes.code import check_links, layer, split
from tradewind.launch.tree import read_tree

if TYPE_CHECKING:
    from tradewind.store import Blobs

RUN, SNAPSHOT = "run.json", "snapshot.json"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def package(about: Mapping[str, Any], digest: str, blobs: "Blobs") -> tuple[str, bytes]:
    """The package's name, made from its content, and its bytes; equal input gives equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in parcel(about, digest, blobs).items():
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), data)
    return f"_ray_pkg_{hashlib.sha256(out.getvalue()).hexdigest()[:32]}.zip", out.getvalue()


def parcel(about: Mapping[str, Any], digest: str, blobs: "Blobs") -> dict[str, bytes]:
    """The files from which `unpack.py` lays out the code, by name, and the run's description.

    Raises SpecError for a link that leads out of the project.
    """
    tree = read_tree(digest, blobs)
    check_links(tree.entries)
    raw = layer(tree.entries, (), blobs)
    parts = split(raw)
    snapshot = {"digest": digest, "layers": [list(parts)], "max_bytes": len(raw)}
    return {RUN: to_bytes(about), SNAPSHOT: to_bytes(snapshot), **parts}


def to_bytes(value: Mapping[str, Any]) -> bytes:
    """As JSON, keys in order."""
    return json.dumps(value, indent=1, sort_keys=True).encode()
