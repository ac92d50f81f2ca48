"""NVIDIA Xid errors: the driver's own reports of what went wrong with a GPU.

Names and NVIDIA's immediate action are those of its Xid catalog, for Ampere and newer GPUs
(https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html). We are stricter in two
places, each stated in the table: a training run dies with any of its workers and may last weeks,
so it leaves a GPU whose memory waits for a reset rather than going on beside the bad row. Codes whose
remedy depends on register bits (the NVLink 5 family) are left to Xid 154, in which the driver
itself says what is needed.
"""

import enum
import re

import msgspec


class Remedy(enum.StrEnum):
    """What clears an Xid."""

    APPLICATION = "application"
    """Start the process again; most often the program itself is at fault."""
    HOST = "host"
    """Reset the GPU or reboot its host, which a run cannot do: go on elsewhere."""


class Xid(msgspec.Struct, frozen=True):
    """One code: what it means, what NVIDIA advises at once, and what we do."""

    code: int
    meaning: str
    advice: str
    """The resolution bucket of NVIDIA's catalog."""
    remedy: Remedy

    def __str__(self) -> str:
        return f"Xid {self.code} ({self.meaning})"


_APPLICATION, _HOST = Remedy.APPLICATION, Remedy.HOST
RECOVERY_ACTION_CHANGED = 154
"""Names no error of its own: the driver sums up what the others need."""

TABLE = {
    xid.code: xid
    for xid in (
        Xid(8, "GPU stopped processing", "RESTART_APP", _APPLICATION),
        Xid(11, "invalid or corrupted push buffer stream", "RESTART_APP", _APPLICATION),
        Xid(13, "graphics engine exception", "RESTART_APP", _APPLICATION),
        Xid(31, "GPU memory page fault", "RESTART_APP", _APPLICATION),
        Xid(32, "invalid or corrupted push buffer stream", "RESTART_APP", _APPLICATION),
        Xid(43, "GPU stopped processing", "IGNORE", _APPLICATION),
        Xid(45, "preemptive cleanup after an earlier error", "WORKFLOW_XID_45", _APPLICATION),
        Xid(46, "GPU stopped processing", "RESET_GPU", _HOST),
        Xid(48, "double bit ECC error", "WORKFLOW_XID_48", _HOST),
        Xid(62, "internal micro-controller halt", "RESET_GPU", _HOST),
        # NVIDIA ignores 63 by itself; the remapped row takes effect only after a reset.
        Xid(63, "GPU memory remapping event", "IGNORE", _HOST),
        Xid(64, "GPU memory remapping failure", "RESET_GPU", _HOST),
        Xid(69, "graphics engine class error", "RESTART_APP", _APPLICATION),
        Xid(74, "NVLink error", "WORKFLOW_NVLINK_ERR", _HOST),
        Xid(79, "GPU has fallen off the bus", "RESTART_BM", _HOST),
        # NVIDIA restarts only the application of 94 and resets at a convenient time: for a run, now.
        Xid(94, "contained memory error", "RESTART_APP", _HOST),
        Xid(95, "uncontained memory error", "RESET_GPU", _HOST),
        Xid(109, "context switch timeout", "RESET_GPU", _HOST),
        Xid(110, "security fault", "RESET_GPU", _HOST),
        Xid(119, "GSP RPC timeout", "RESET_GPU", _HOST),
        Xid(120, "GSP error", "RESET_GPU", _HOST),
        Xid(136, "NVLink training failure", "RESET_GPU", _HOST),
        Xid(140, "ECC unrecovered error", "RESET_GPU", _HOST),
        Xid(143, "GPU initialization error", "RESET_GPU", _HOST),
        Xid(156, "resource retirement event", "RESET_GPU", _HOST),
        Xid(158, "GPU fatal timeout", "RESET_GPU", _HOST),
    )
}

_REPORT = re.compile(r"\bXid(?: \([^)\n]*\))?:? ?(\d+)([^\n]*)")
_ACTION = re.compile(r"\bto 0x[0-9a-fA-F]+ \(([^)\n]+)\)")
_ECC = re.compile(r"CUDA error: [^\n]*\bECC\b", re.IGNORECASE)


def find_xids(text: str) -> tuple[Xid, ...]:
    """Every Xid that a kernel log or an error text reports, in order, each code once.

    A code that the table lacks is blamed on the application: replacing hosts on an unknown number
    could empty a cluster. Xid 154 carries the action it asks for, and is left out when that is none.
    """
    found: dict[int, Xid] = {}
    for match in _REPORT.finditer(text):
        xid = read_xid(int(match[1]), match[2])
        if xid is not None:
            found.setdefault(xid.code, xid)
    return tuple(found.values())


def read_xid(code: int, rest: str) -> Xid | None:
    """What a code followed by `rest` of its line says; None when it says that nothing is needed."""
    if code != RECOVERY_ACTION_CHANGED:
        return TABLE.get(code) or Xid(code, "not in our table", "unknown", Remedy.APPLICATION)
    action = _ACTION.search(rest)
    if action is not None and action[1] == "None":
        return None
    wanted = action[1] if action else "unknown"
    return Xid(code, f"GPU recovery action: {wanted}", "XID_154", Remedy.HOST)


def is_ecc_error(text: str) -> bool:
    """Whether CUDA itself reports memory that cannot be trusted, with or without an Xid beside it."""
    return _ECC.search(text) is not None
