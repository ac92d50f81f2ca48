"""Pages of host memory that stay where they are and that a GPU copies into by itself: "page-locked" in CUDA's manual.

Into other memory the driver copies through a buffer of its own, while the calling thread waits.
"""

import structlog
import torch

from tradewind.train.checkpoint.copying import Bytes

log = structlog.get_logger()
_PORTABLE = 1
"""cudaHostRegisterPortable: for whatever GPU of this process copies into them."""


def lock(pages: Bytes, device: torch.device) -> bool:
    """Lock mapped memory; whether that was possible. Copies are right without it, and slower.

    `device` is a GPU that this process uses anyway: on another one it would occupy memory.
    """
    with torch.cuda.device(device):
        runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        error = int(runtime.cudaHostRegister(pages.ctypes.data, pages.nbytes, _PORTABLE))
    if error:
        log.warning("memory is not locked for the GPU", nbytes=pages.nbytes, cuda_error=error)
    return not error


def unlock(pages: Bytes) -> None:
    """Have the driver forget memory that was locked, before it is unmapped."""
    torch.cuda.cudart().cudaHostUnregister(pages.ctypes.data)  # type: ignore[no-untyped-call]
