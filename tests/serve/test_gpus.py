"""Which GPUs there are, read from an object with torch's functions, and what is said where there are none."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.serve.conftest import COMMAND
from tradewind.errors import SpecError
from tradewind.serve.gpus import Gpu, Seen, chosen, find, look

H200 = SimpleNamespace(name="NVIDIA H200", pci_domain_id=0, pci_bus_id=0x3B, pci_device_id=0x1A)


def torch(*properties: Any, built: bool = True, init: Any = lambda: None) -> Any:
    """Torch on a machine with such GPUs."""
    return SimpleNamespace(
        __version__="2.13.0",
        backends=SimpleNamespace(cuda=SimpleNamespace(is_built=lambda: built)),
        cuda=SimpleNamespace(
            init=init,
            device_count=lambda: len(properties),
            get_device_properties=lambda index: properties[index],
        ),
    )


def broken() -> None:
    raise RuntimeError("Found no NVIDIA driver on your system.\nPlease check.")


def test_gpus_are_told_with_their_addresses():
    """As /sys names them; "" from a torch that does not know."""
    assert look(torch(H200, SimpleNamespace(name="old"))).gpus == (
        Gpu(0, "NVIDIA H200", "0000:3b:1a.0"),
        Gpu(1, "old", ""),
    )


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (torch(built=False), "torch 2.13.0 is built without CUDA, install a build that has it"),
        (torch(init=broken), "no GPU can be used: Found no NVIDIA driver on your system."),
        (torch(), "no GPU is visible here (CUDA_VISIBLE_DEVICES?)"),
    ],
)
def test_where_there_is_none_the_reason_is_told(there, said):
    """What is wrong, in one line, and what to do."""
    assert look(there) == Seen(why=said)
    with pytest.raises(SpecError) as caught:
        chosen(look(there))
    assert str(caught.value) == f"device: cuda: {said}; serve with `device: cpu`, or where a GPU is"


def test_a_torch_that_cannot_be_asked_is_told(monkeypatch, tmp_path):
    """Its own last words."""
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart is not there')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}:{':'.join(sys.path)}")
    with pytest.raises(SpecError, match="looking for GPUs failed: ImportError: libcudart is not there"):
        find()


def test_a_server_that_is_to_have_a_gpu_and_has_none_does_not_start(generic, tmp_path):
    """It says why at once; no worker is started, and nothing falls back to the CPU by itself."""
    command = [sys.executable, "-c", COMMAND, "serve", str(generic), "--port", "0", "--device", "cuda"]
    env = os.environ | {"TRADEWIND_HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "device: cuda: " in done.stderr
    assert "serve with `device: cpu`" in done.stderr


def test_the_flag_is_the_spec_s_device(generic, tmp_path):
    """And a dry run looks for no GPU."""
    command = [sys.executable, "-c", COMMAND, "serve", str(generic), "--dry-run", "-o", "json"]
    env = os.environ | {"TRADEWIND_HOME": str(tmp_path)}
    found = [
        json.loads(subprocess.run([*command, *flags], capture_output=True, env=env, check=True).stdout)
        for flags in ([], ["--device", "cuda"])
    ]
    assert [said["spec"]["device"] for said in found] == ["cpu", "cuda"]
