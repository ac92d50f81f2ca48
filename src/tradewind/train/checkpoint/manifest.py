"""The manifest: which files a checkpoint is made of, written last, with a digest of itself."""

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from tradewind.errors import IntegrityError
from tradewind.names import MANIFEST
from tradewind.train.checkpoint import sums
from tradewind.train.checkpoint.sealed import seal, unseal

FORMAT = "tradewind-checkpoint/2"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A checkpoint's step, number of workers, and files as `{name: {"size", "sums"}}`.

    `sums` are the checksums (XXH3, 128 bits, in hex) of every `chunk` bytes of a file, joined.
    """

    step: int
    world: int
    files: dict[str, dict[str, Any]]

    @property
    def size_bytes(self) -> int:
        """Bytes in all files, the manifest apart."""
        return sum(int(entry["size"]) for entry in self.files.values())

    def sums_of(self, name: str) -> list[bytes]:
        """The checksums of a file's chunks."""
        joined = bytes.fromhex(self.files[name]["sums"])
        return [joined[at : at + sums.LENGTH] for at in range(0, len(joined), sums.LENGTH)]

    def to_bytes(self) -> bytes:
        """The one encoding of this manifest."""
        body = {"format": FORMAT, "step": self.step, "world": self.world, "files": self.files}
        body["chunk"] = sums.CHUNK
        return seal(body)

    def check(self) -> None:
        """Raise ValueError unless every file has a plain name and as many checksums as chunks."""
        for name, entry in self.files.items():
            if PurePath(name).name != name or len(self.sums_of(name)) != sums.num_chunks(entry["size"]):
                raise ValueError(f"{name} cannot be a file of a checkpoint")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint folder; an IntegrityError unless it is the bytes that were written."""
    path = folder / MANIFEST
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror}") from error
    return _of(unseal(raw, path, FORMAT, lambda fields: _of(fields).to_bytes() == raw))


def _of(fields: dict[str, Any]) -> Manifest:
    manifest = Manifest(step=fields["step"], world=fields["world"], files=fields["files"])
    manifest.check()
    return manifest
