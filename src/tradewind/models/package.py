"""A model as a folder: written once, verified byte by byte when opened, never unpickled."""

import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from tradewind.errors import IntegrityError, NotFoundError, SpecError
from tradewind.models.manifest import Manifest, Signature, digest_of, read, seal
from tradewind.names import MANIFEST

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from tradewind.models.program import Program

_OUTPUTS = {"recommend": {"encode": ["query"], "rank": ["scores"]}, "generic": {}}


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
        """Per-user values of each metric, and the users' ids under `user` where they were kept."""
        return self._safetensors("evaluation.safetensors")

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


def write_package(
    dest: pathlib.Path | str,
    *,
    name: str,
    task: str = "generic",
    programs: "Mapping[str, ExportedProgram]",
    tensors: "Mapping[str, Mapping[str, torch.Tensor]] | None" = None,
    vocabularies: Mapping[str, Sequence[str]] | None = None,
    metrics: Mapping[str, float] | None = None,
    lineage: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    evaluation: "Mapping[str, torch.Tensor] | None" = None,
    outputs: Mapping[str, Sequence[str]] | None = None,
) -> Package:
    """Write a package into the new folder `dest` and open it again.

    `evaluation` holds one metric value per user, which the promotion gate compares. `outputs` names a program's
    outputs where its forward does not return a dict.
    """
    folder = pathlib.Path(dest)
    if task not in _OUTPUTS:
        raise SpecError(f"task {task!r} is not one of {', '.join(sorted(_OUTPUTS))}")
    folder.mkdir(parents=True, exist_ok=False)
    contents, signatures = _program_files(programs, {**_OUTPUTS[task], **(outputs or {})})
    groups = dict(tensors or {})
    contents |= _tensor_files(groups, evaluation)
    for vocabulary, ids in (vocabularies or {}).items():
        contents[f"vocabularies/{vocabulary}.json"] = msgspec.json.encode(list(ids))
    manifest = Manifest(
        format=1,
        name=name,
        task=task,
        created_s=time.time(),
        programs=signatures,
        tensors=tuple(sorted(groups)),
        vocabularies=tuple(sorted(vocabularies or {})),
        metrics={key: float(value) for key, value in (metrics or {}).items()},
        lineage=dict(lineage or {}),
        config=dict(config or {}),
        files={path: digest_of(data) for path, data in contents.items()},
    )
    write_contents(folder, contents, seal(manifest)[1])
    return open_package(folder)


def _program_files(
    programs: "Mapping[str, ExportedProgram]", outputs: Mapping[str, Sequence[str]]
) -> tuple[dict[str, bytes], dict[str, Signature]]:
    from tradewind.models.graph import normalize, to_json
    from tradewind.models.signature import signature_of
    from tradewind.models.tensors import dump

    contents: dict[str, bytes] = {}
    signatures: dict[str, Signature] = {}
    for name, exported in programs.items():
        signatures[name] = signature_of(exported, outputs.get(name))
        graph, weights = to_json(normalize(exported))
        contents[f"programs/{name}.json"] = msgspec.json.encode(graph)
        contents[f"weights/{name}.safetensors"] = dump(weights)
    return contents, signatures


def _tensor_files(
    groups: "Mapping[str, Mapping[str, torch.Tensor]]", evaluation: "Mapping[str, torch.Tensor] | None"
) -> dict[str, bytes]:
    from tradewind.models.tensors import dump

    contents = {f"tensors/{group}.safetensors": dump(values) for group, values in groups.items()}
    if evaluation:
        contents["evaluation.safetensors"] = dump(evaluation)
    return contents


def write_contents(folder: pathlib.Path, contents: Mapping[str, bytes | bytearray], manifest: bytes) -> None:
    """Write a package's files and, last, its manifest, each flushed to disk."""
    for path, data in contents.items():
        _write_file(folder / path, data)
    _write_file(folder / MANIFEST, manifest)


def _write_file(path: pathlib.Path, data: bytes | bytearray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
