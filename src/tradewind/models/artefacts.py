"""The folder of compiled programs: this user's own, on this machine, from packages that were verified.

An artefact is native code, so that it never comes with a package or from anybody else. Its key says what it was made
from and for; its manifest, written last, what its bytes are.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import pathlib
import platform
import shutil
import tempfile
from collections.abc import Iterator

import msgspec
import torch

from tradewind.errors import IntegrityError, TradewindError
from tradewind.home import home, why_not_own
from tradewind.models.compile import FORMAT
from tradewind.models.manifest import digest_of
from tradewind.models.package import Package
from tradewind.models.program import Program
from tradewind.names import MANIFEST

LIBRARY = "program.so"


class Artefact(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a compiled program; `sha256` and `size` are its library's."""

    key: str
    program: str
    sha256: str
    size: int
    compiler: str
    seconds: float


class UnsafeFolderError(TradewindError):
    """Others could put code into the folder of compiled programs; says how to mend it."""


def target() -> dict[str, str]:
    """Return what compiled code depends on besides its program: torch, and the processor that it was made for."""
    return {
        "torch": f"{torch.__version__} {torch.version.git_version}",
        "machine": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cpu": _cpu(),
        "device": "cpu",
    }


def key_of(package: Package, program: Program) -> str:
    """Return the key of a program: of its graph and signature, its weights' layout, and the target; not of the weights."""
    weights = program.graph_module.named_buffers()
    made_from = {
        "format": FORMAT,
        "graph": package.manifest.files[f"programs/{program.name}.json"].sha256,
        "signature": program.signature,
        "weights": [(n, str(t.dtype), list(t.shape), list(t.stride())) for n, t in weights],
        "target": target(),
    }
    return hashlib.sha256(msgspec.json.encode(made_from, order="deterministic")).hexdigest()


class Artefacts:
    """The artefacts under `folder`; by default those of this user's home."""

    def __init__(self, folder: pathlib.Path | None = None) -> None:
        self.folder = home() / "compiled" if folder is None else folder

    def find(self, key: str) -> tuple[pathlib.Path, Artefact] | None:
        """Return the library of a key and its manifest; None where there is none.

        Raises IntegrityError where its bytes are not those that were written, UnsafeFolderError where others may have
        written them.
        """
        folder = self.folder / key
        if not folder.exists():
            return None
        for path in (self.folder, folder, folder / MANIFEST, folder / LIBRARY):
            check_own(path)
        try:
            artefact = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Artefact)
        except (OSError, msgspec.DecodeError) as error:
            raise IntegrityError(f"{folder / MANIFEST}: {error}; compile again") from None
        found = digest_of((folder / LIBRARY).read_bytes())
        if (artefact.key, artefact.sha256, artefact.size) != (key, found.sha256, found.size):
            raise IntegrityError(
                f"{folder / LIBRARY}: the bytes are not those that were compiled; compile again"
            )
        return folder / LIBRARY, artefact

    def publish(
        self, key: str, program: str, library: pathlib.Path, compiler: str, seconds: float
    ) -> Artefact:
        """Move a library into place, whole or not at all; what was there is replaced."""
        self.make()
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=".making-", dir=self.folder))
        try:
            data = library.read_bytes()
            file = digest_of(data)
            _write(temporary / LIBRARY, data)
            artefact = Artefact(
                key=key,
                program=program,
                sha256=file.sha256,
                size=file.size,
                compiler=compiler,
                seconds=seconds,
            )
            _write(temporary / MANIFEST, msgspec.json.format(msgspec.json.encode(artefact)))
            shutil.rmtree(self.folder / key, ignore_errors=True)
            temporary.rename(self.folder / key)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return artefact

    @contextlib.contextmanager
    def building(self, key: str) -> Iterator[None]:
        """Hold the key: whoever else builds it waits, and then finds it built. Let go of when this process ends."""
        self.make()
        with open(self.folder / f"{key}.lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def make(self) -> None:
        """Make the folder. Raises UnsafeFolderError where it is there and not this user's own."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self.folder.mkdir(mode=0o700)
        check_own(self.folder)


def check_own(path: pathlib.Path) -> None:
    """Raise UnsafeFolderError unless a file or folder is this user's, no link, and nobody else may write it."""
    try:
        why = why_not_own(path)
    except FileNotFoundError:
        raise IntegrityError(f"{path}: missing; compile again") from None
    if why is not None:
        raise UnsafeFolderError(f"{why}; compiled code is not read from it: remove it")


def _write(path: pathlib.Path, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@functools.cache
def _cpu() -> str:
    """A digest of the processor's model and instructions: code is made for exactly these."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    told = sorted(
        {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
    )
    return hashlib.sha256("\n".join(told).encode()).hexdigest()
