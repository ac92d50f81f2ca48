"""What clients of the protocol may ask that a replica does not do, and what it says instead."""

from collections.abc import Sequence

SHARED_MEMORY = "unsupported: shared memory; send tensors in the request"
CONTROL = "unsupported: loading and unloading models; a replica serves what it was started with"
TRACE = "unsupported: trace settings"
LOGGING = "unsupported: log settings; the access log is set where the server is started"
CALLS = {
    "SystemSharedMemory": SHARED_MEMORY,
    "CudaSharedMemory": SHARED_MEMORY,
    "RepositoryModel": CONTROL,
    "Trace": TRACE,
    "Log": LOGGING,
}
"""By the beginning of a gRPC call's name."""
_PATHS = {
    "systemsharedmemory": SHARED_MEMORY,
    "cudasharedmemory": SHARED_MEMORY,
    "trace": TRACE,
    "logging": LOGGING,
}


def unsupported_path(parts: Sequence[str]) -> str | None:
    """Say why a path of the protocol, cut at its slashes, is not served; None where it is no such path."""
    if parts[:2] != ["", "v2"]:
        return None
    if parts[2:4] == ["repository", "models"] and parts[-1] in ("load", "unload"):
        return CONTROL
    if parts[2:3] == ["models"] and parts[4:5] == ["trace"]:
        return TRACE
    return _PATHS.get(parts[2]) if len(parts) > 2 else None


def unsupported_call(call: str) -> str:
    """Say why a gRPC call is not served."""
    for beginning, why in CALLS.items():
        if call.startswith(beginning):
            return why
    return f"unsupported: {call[:80]!r} is not a call of the Open Inference Protocol"
