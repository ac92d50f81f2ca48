"""Which errors of a GPU leave nothing that works in this process: only a new one can use the device again. No torch.

A kernel that reads outside its memory, or a GPU that falls off its bus, breaks the process's context: every later call
fails with the same error ("sticky" in CUDA's manual). What torch raises is an AcceleratorError with the number of the
cudaError_t, or from libraries a RuntimeError that begins with their name.
"""

import re

BEGINS = ("CUDA error", "CUDA driver error", "cuDNN error", "cuBLAS error")
LIBRARY = re.compile(r"\bCU[A-Z]+_STATUS_(\w+)")
BROKEN = frozenset({"EXECUTION_FAILED", "INTERNAL_ERROR", "MAPPING_ERROR"})
"""What libraries say when the device failed them; all else is about what they were asked for."""
RECOVERS = frozenset({1, 2, 9, 98, 209, 222, 701, 801, *range(900, 909)})
"""cudaError_t: invalid value, out of memory, invalid configuration, no such function, no kernel for this GPU (twice), too
many resources, not supported, and those of a capture."""
RECOVERS_TEXT = (
    *("invalid argument", "out of memory", "invalid configuration", "invalid device function"),
    *("no kernel image", "unsupported toolchain", "too many resources", "not supported", "captur"),
)
"""The same in words, where the number is not at hand."""


def is_lost(error: BaseException) -> bool:
    """Whether the device is lost to this process. An unknown error of CUDA's is taken for one: a new process is safe."""
    if not isinstance(error, RuntimeError) or type(error).__name__ == "OutOfMemoryError":
        return False
    code = getattr(error, "error_code", None)
    if type(error).__name__ == "AcceleratorError" and isinstance(code, int):
        return code not in RECOVERS
    text = str(error)
    if not text.startswith(BEGINS):
        return False
    library = LIBRARY.search(text)
    if library is not None:
        return library[1] in BROKEN
    return not any(known in text for known in RECOVERS_TEXT)
