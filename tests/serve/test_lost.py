"""Which errors end a worker: those after which the device answers no more in this process."""

import pytest
import torch

from tradewind.serve.lost import is_lost


def accelerator(code: int | None, text: str) -> torch.AcceleratorError:
    """What torch raises for a cudaError_t."""
    error = torch.AcceleratorError(f"CUDA error: {text}")
    if code is not None:
        error.error_code = code
    return error


LOST = [
    accelerator(700, "an illegal memory access was encountered"),
    accelerator(710, "device-side assert triggered"),
    accelerator(719, "unspecified launch failure"),
    accelerator(214, "uncorrectable ECC error encountered"),
    accelerator(46, "CUDA-capable device(s) is/are busy or unavailable"),
    accelerator(None, "an illegal memory access was encountered"),
    accelerator(99999, "what nobody has seen yet"),
    RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, ...)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    RuntimeError("CUDA driver error: unknown error"),
]
KEPT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    torch.OutOfMemoryError("CUDA error: whatever it says"),
    accelerator(2, "out of memory"),
    accelerator(None, "out of memory"),
    accelerator(1, "invalid argument"),
    accelerator(209, "no kernel image is available for execution on the device"),
    accelerator(900, "operation not permitted when stream is capturing"),
    RuntimeError("CUDA error: operation failed due to a previous error during capture"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    RuntimeError("index out of range in self"),
    RuntimeError("the model says: CUDA error"),
    ValueError("CUDA error: not torch's"),
    IndexError("index 40 is out of bounds"),
]


@pytest.mark.parametrize("error", LOST, ids=str)
def test_a_device_that_is_gone_ends_the_worker(error):
    """The pool then replaces it, and its requests are run again inside their deadlines."""
    assert is_lost(error)


@pytest.mark.parametrize("error", KEPT, ids=str)
def test_other_errors_are_the_batch_s_alone(error):
    """The next batch may well fit, or be another one's fault."""
    assert not is_lost(error)
