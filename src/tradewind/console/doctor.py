"""`tradewind doctor`: does this machine have what Tradewind needs?"""

import contextlib
import importlib.metadata
import importlib.util
import os
import pathlib
import resource
import shutil
import socket
import sys
from collections.abc import Callable, Sequence

import msgspec

from tradewind.errors import TradewindError

_GIB = 1 << 30
EXTRAS = {
    "train": ("torch", "numpy", "pyarrow", "safetensors"),
    "serve": ("torch", "numpy", "safetensors", "uvloop", "httptools", "faiss"),
    "postgres": ("psycopg",),
    "s3": ("obstore",),
    "ops": ("psutil",),
}
"""Optional parts and the modules they import."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One question about the machine, its answer, and what to do when the answer is no."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = True
    """Whether `tradewind doctor` fails on it; an optional part that is absent only informs."""


def diagnose(store_url: str | None = None) -> list[Check]:
    """Every check, in the order in which to fix them."""
    return [
        check_python(),
        check_torch(),
        check_store(store_url),
        check_disk(),
        check_shared_memory(),
        check_open_files(),
        check_loopback(),
        check_cores(),
        *(check_extra(name, modules) for name, modules in EXTRAS.items()),
    ]


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Python 3.11 or newer."""
    said = ".".join(map(str, version))
    return Check(name="python", ok=version >= (3, 11), detail=said, remedy="install Python 3.11 or newer")


def check_torch() -> Check:
    """torch is there and imports; without it runs still launch, but nothing trains or serves here."""
    remedy = "pip install 'tradewind[train]'"
    if importlib.util.find_spec("torch") is None:
        return Check(name="torch", ok=False, detail="not installed", remedy=remedy, needed=False)
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check(
            name="torch", ok=False, detail=f"does not import: {error}", remedy=f"{remedy} --force-reinstall"
        )
    where = f"{torch.cuda.device_count()} GPU(s)" if torch.cuda.is_available() else "CPU"
    return Check(name="torch", ok=True, detail=f"{torch.__version__}, {where}")


def check_store(url: str | None = None) -> Check:
    """The store opens and answers a query."""
    from tradewind.store import open_store

    remedy = "check TRADEWIND_STORE and TRADEWIND_HOME; unset, the store is ~/.tradewind/store.db"
    try:
        with open_store(url) as store:
            store.runs(limit=1)
            return Check(name="store", ok=True, detail=_without_password(store.url))
    except (TradewindError, OSError) as error:
        return Check(name="store", ok=False, detail=str(error), remedy=remedy)


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    scheme, slashes, user = head.partition("://")
    return f"{scheme}{slashes}{user.split(':')[0]}@{tail}" if at else url


def check_disk(folder: pathlib.Path | None = None, least_gib: float = 5.0) -> Check:
    """Room for checkpoints, models and logs, in a folder that can be written."""
    from tradewind.store import home

    at = folder or home()
    while not at.exists():
        at = at.parent
    free_gib = shutil.disk_usage(at).free / _GIB
    if not os.access(at, os.W_OK):
        return Check(
            name="disk",
            ok=False,
            detail=f"{at} cannot be written",
            remedy="set TRADEWIND_HOME to a folder of yours",
        )
    remedy = "free some, or set TRADEWIND_HOME to a larger disk"
    return Check(
        name="disk", ok=free_gib >= least_gib, detail=f"{free_gib:.1f} GiB free at {at}", remedy=remedy
    )


def check_shared_memory(path: str = "/dev/shm", least_gib: float = 0.25) -> Check:
    """Workers and the server pass tensors through shared memory; containers often give 64 MiB."""
    remedy = "in a container: docker run --shm-size=2g, or an emptyDir with medium: Memory"
    if not os.path.isdir(path):
        return Check(name="shared memory", ok=False, detail=f"{path} is not there", remedy=remedy)
    free_gib = shutil.disk_usage(path).free / _GIB
    return Check(
        name="shared memory", ok=free_gib >= least_gib, detail=f"{free_gib:.2f} GiB free", remedy=remedy
    )


def check_open_files(least: int = 4096) -> Check:
    """Connections and workers need file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    ok = infinite in (soft, hard) or hard >= least
    said = "/".join("unlimited" if limit == infinite else str(limit) for limit in (soft, hard))
    return Check(name="open files", ok=ok, detail=f"{said} (soft/hard)", remedy=f"ulimit -n {least}")


def check_loopback() -> Check:
    """Ranks of one machine meet on 127.0.0.1; some sandboxes take it away."""
    try:
        with contextlib.ExitStack() as held:
            listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            client = held.enter_context(socket.create_connection(listener.getsockname(), timeout=5))
            peer, _ = listener.accept()
            held.enter_context(peer).sendall(b"x")
            ok = client.recv(1) == b"x"
    except OSError as error:
        return Check(
            name="loopback", ok=False, detail=str(error), remedy="ip link set lo up; allow 127.0.0.1"
        )
    return Check(name="loopback", ok=ok, detail="127.0.0.1 listens and connects", remedy="allow 127.0.0.1")


def check_cores(least: int = 2) -> Check:
    """Load is generated beside the server: with one core they take turns and figures suffer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    remedy = "run tradewind load from another machine (--allow-remote)"
    return Check(name="cores", ok=cores >= least, detail=str(cores), remedy=remedy, needed=False)


def check_extra(
    name: str,
    modules: Sequence[str],
    found: Callable[[str], object] = importlib.util.find_spec,
) -> Check:
    """Every module of an optional part is installed."""
    absent = [module for module in modules if found(module) is None]
    return Check(
        name=f"extra: {name}",
        ok=not absent,
        detail=f"lacks {', '.join(absent)}" if absent else "installed",
        remedy=f"pip install 'tradewind[{name}]'",
        needed=False,
    )
