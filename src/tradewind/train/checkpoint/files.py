"""Files that are on the disk when the call returns, with the digest of what was meant to be there."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from tradewind.train.checkpoint.tree import STORED, Tensors


def write_file(path: Path, chunks: Iterable[Any]) -> dict[str, Any]:
    """Write and fsync; the sha256 and size of what was to be written, not of what a disk kept."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            size += memoryview(chunk).nbytes
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": digest.hexdigest(), "size": size}


def fsync_dir(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def tensor_chunks(tensors: Tensors) -> Iterable[Any]:
    """A safetensors file, one tensor in host memory at a time."""
    # Wide types first, so that every tensor lies aligned in the file and can be mapped.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {}
    offset = 0
    for name in order:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.dtype.itemsize
        header[name] = {
            "dtype": STORED[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        if tensors[name].numel():
            flat = tensors[name].cpu().contiguous().reshape(-1)
            yield flat.view(torch.uint8).numpy().data
