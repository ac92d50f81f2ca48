"""Writing a package: everything is checked and encoded first, then the folder appears in one step."""

import math
import os
import pathlib
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from tradewind.errors import SpecError
from tradewind.models.manifest import FORMAT, Manifest, Signature, digest_of, seal
from tradewind.models.package import EVALUATION, Package, need_torch, open_package
from tradewind.names import MANIFEST

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

_OUTPUTS = {"recommend": {"encode": ["query"], "prerank": ["scores"], "rank": ["scores"]}, "generic": {}}
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*", re.ASCII)


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
    """Write a package as the new folder `dest` and open it.

    Each program is the result of `torch.export.export`. `tensors`, `vocabularies` and `config` are whatever
    serves the task; `evaluation` holds one value per user for each metric, and the users' ids as int64 under
    `user`, for the promotion gate. `outputs` names a program's outputs where its forward does not return a
    dict. Raises SpecError for what cannot be packaged, and FileExistsError when `dest` exists.
    """
    need_torch()
    folder = pathlib.Path(dest)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; a package is written once, as a new folder")
    if task not in _OUTPUTS:
        raise SpecError(f"task {task!r} is not one of {', '.join(sorted(_OUTPUTS))}")
    tensors, vocabularies = tensors or {}, vocabularies or {}
    _check_parts([*programs, *tensors, *vocabularies])
    contents, signatures = _program_files(programs, {**_OUTPUTS[task], **(outputs or {})})
    contents |= _tensor_files(tensors, evaluation)
    for vocabulary, ids in vocabularies.items():
        contents[f"vocabularies/{vocabulary}.json"] = msgspec.json.encode(list(ids))
    manifest = Manifest(
        format=FORMAT,
        name=name,
        task=task,
        created_s=time.time(),
        programs=signatures,
        tensors=tuple(sorted(tensors)),
        vocabularies=tuple(sorted(vocabularies)),
        metrics={key: _plain(float(value), f"metrics[{key!r}]") for key, value in (metrics or {}).items()},
        lineage=_plain(dict(lineage or {}), "lineage"),
        config=_plain(dict(config or {}), "config"),
        files={path: digest_of(data) for path, data in contents.items()},
    )
    place(folder, contents, seal(manifest)[1])
    return open_package(folder)


def place(
    folder: pathlib.Path,
    contents: Mapping[str, bytes | bytearray],
    manifest: bytes,
    *,
    read_only: bool = False,
) -> None:
    """Make the package appear as `folder` in one step, all of it flushed to disk.

    Raises OSError, and leaves nothing behind, when it cannot.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{folder.name[:64]}-{secrets.token_hex(6)}"
    temporary.mkdir()
    try:
        for path, data in (*contents.items(), (MANIFEST, manifest)):
            _write_file(temporary / path, data, read_only)
        for root, _, _ in os.walk(temporary):
            _sync(root)
        os.rename(temporary, folder)
    except BaseException:  # also on Ctrl-C: nobody else knows of the folder
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(folder.parent)


def _write_file(path: pathlib.Path, data: bytes | bytearray, read_only: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        if read_only:
            os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode & 0o555)
        os.fsync(file.fileno())


def _sync(folder: str | pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        contents[EVALUATION] = dump(evaluation)
    return contents


def _check_parts(names: Iterable[str]) -> None:
    for name in names:
        if not _PART.fullmatch(name):
            raise SpecError(f"{name!r} names a file of the package: use letters, digits, '_' and '-'")


def _plain(value: Any, where: str) -> Any:
    """`value` as it will be read back, or SpecError saying which part JSON cannot hold."""
    match value:
        case None | bool() | str():
            return value
        case int() if -(2**63) <= value < 2**64:
            return value
        case float() if math.isfinite(value):
            return value
        case list() | tuple():
            return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
        case Mapping():
            return {_key(k, where): _plain(v, f"{where}[{k!r}]") for k, v in value.items()}
    raise SpecError(
        f"{where} is {value!r} ({type(value).__name__}), which JSON cannot hold; use plain finite values"
    )


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise SpecError(f"{where} has the key {key!r}; keys are strings")
    return key
