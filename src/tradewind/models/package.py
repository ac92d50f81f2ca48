"""A model as a folder: written once, verified byte by byte when opened, never unpickled."""

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from tradewind.errors import IntegrityError, MissingExtraError, NotFoundError
from tradewind.models.manifest import Manifest, Signature, read
from tradewind.names import MANIFEST

if TYPE_CHECKING:
    import torch

    from tradewind.models.program import Program

EVALUATION = "evaluation.safetensors"
"""Per-user values of each metric."""


class Package:
    """A verified package, held in memory as it was read from disk."""

    def __init__(self, path: pathlib.Path, manifest: Manifest, contents: Mapping[str, bytearray]) -> None:
        self.path = path
        self.manifest = manifest
        self._contents = contents

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the manifest, which holds the digest of every other file."""
        return self.manifest.digest

    @property
    def config(self) -> dict[str, Any]:
        return self.manifest.config

    def signature(self, name: str) -> Signature:
        return self.manifest.programs[self._known(name, self.manifest.programs, "program")]

    def program(self, name: str, device: str = "cpu") -> "Program":
        """The program as an eager module on `device`, with dynamic dimensions still dynamic."""
        need_torch()
        from tradewind.models import graph
        from tradewind.models.program import Program

        signature = self.signature(name)
        source = f"programs/{name}.json"
        encoded = self._json(source)
        weights = self._safetensors(f"weights/{name}.safetensors")
        module = graph.from_json(encoded, weights, source=str(self.path / source), device=device)
        return Program(name, module, signature)

    def tensors(self, name: str) -> "dict[str, torch.Tensor]":
        return self._safetensors(
            f"tensors/{self._known(name, self.manifest.tensors, 'tensor group')}.safetensors"
        )

    def evaluation(self) -> "dict[str, torch.Tensor]":
        """Per-user values of each metric, and the users' ids under `user`; empty when none were kept."""
        return self._safetensors(EVALUATION) if EVALUATION in self._contents else {}

    def vocabulary(self, name: str) -> list[str]:
        """External ids by position."""
        path = f"vocabularies/{self._known(name, self.manifest.vocabularies, 'vocabulary')}.json"
        return msgspec.json.decode(self._contents[path], type=list[str])

    def _known(self, name: str, names: Any, what: str) -> str:
        if name not in names:
            raise NotFoundError(
                f"{self.path}: no {what} {name!r}; it has {', '.join(sorted(names)) or 'none'}"
            )
        return name

    def _json(self, path: str) -> dict[str, Any]:
        try:
            return msgspec.json.decode(self._contents[path], type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise IntegrityError(f"{self.path / path}: not JSON: {error}") from error

    def _safetensors(self, path: str) -> "dict[str, torch.Tensor]":
        need_torch()
        from tradewind.models.tensors import load

        return load(self._contents[path], str(self.path / path))


def open_package(path: pathlib.Path | str, *, digest: str | None = None) -> Package:
    """The package in the folder `path`, every byte verified.

    Raises IntegrityError naming the file that is damaged, missing or extra, or when the package is not the one
    with `digest`.
    """
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise NotFoundError(f"{folder}: no such package folder")
    manifest, contents = read(folder)
    if digest is not None and manifest.digest != digest:
        raise IntegrityError(f"{folder / MANIFEST}: digest {manifest.digest}, expected {digest}")
    return Package(folder, manifest, contents)


def need_torch() -> None:
    """Raise MissingExtraError where a model's tensors cannot be read."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("models need PyTorch: pip install 'tradewind[serve]'") from error
