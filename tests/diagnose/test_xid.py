"""Reading the driver's Xid reports."""

import pytest

from tradewind.diagnose.xid import TABLE, Remedy, find_xids, is_ecc_error

KERNEL_LOG = """
[12.1] NVRM: GPU at PCI:0000:03:00: GPU-b850f46d-d5ea-c752-ddf3-c4453e44d3f7
[12.2] NVRM: Xid (PCI:0000:03:00): 31, pid=4711, name=python, Ch 00000008, MMU Fault
[12.3] NVRM: Xid (PCI:0000:03:00): 31, pid=4711, name=python, Ch 00000009, MMU Fault
[12.4] NVRM: Xid (PCI:0000:65:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
"""


def test_codes_are_found_once_and_in_order() -> None:
    """A log's Xids are its codes in order of appearance; lines that only name a GPU are none."""
    assert [xid.code for xid in find_xids(KERNEL_LOG)] == [31, 79]


@pytest.mark.parametrize("code", [13, 31, 43, 45])
def test_application_errors_leave_the_host(code: int) -> None:
    """Codes that NVIDIA puts down to the program ask for a restart of it alone."""
    assert TABLE[code].remedy is Remedy.APPLICATION


@pytest.mark.parametrize("code", [48, 63, 64, 74, 79, 94, 95, 119, 120])
def test_broken_devices_leave_the_host(code: int) -> None:
    """Codes that only a reset or a reboot clears ask for another host."""
    assert TABLE[code].remedy is Remedy.HOST


@pytest.mark.parametrize(
    ("action", "remedy"),
    [
        ("(None) to 0x2 (Node Reboot Required)", Remedy.HOST),
        ("(None) to 0x1 (GPU Reset Required)", Remedy.HOST),
        ("(None) to 0x4 (Drain and Reset)", Remedy.HOST),
        ("(GPU Reset Required) to 0x0 (None)", None),
    ],
)
def test_xid_154_says_what_the_driver_wants(action: str, remedy: Remedy | None) -> None:
    """Xid 154 stands for the action it names, and for nothing when that is None."""
    line = f"NVRM: Xid (PCI:0000:03:00): 154, GPU recovery action changed from 0x0 {action}"
    assert [xid.remedy for xid in find_xids(line)] == ([remedy] if remedy else [])


def test_an_unknown_code_does_not_cost_a_host() -> None:
    """A code outside the table is reported and blamed on the application."""
    [xid] = find_xids("NVRM: Xid (PCI:0000:03:00): 9999, something new")
    assert (xid.code, xid.remedy) == (9999, Remedy.APPLICATION)


def test_cuda_reports_ecc_errors_itself() -> None:
    """CUDA's own words for memory that failed its check are known; other CUDA errors are not it."""
    assert is_ecc_error("RuntimeError: CUDA error: uncorrectable ECC error encountered")
    assert not is_ecc_error("RuntimeError: CUDA error: an illegal memory access was encountered")
