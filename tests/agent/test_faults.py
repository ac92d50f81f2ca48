"""The faults do what they say, can be undone, and refuse to hit more than the run."""

import errno
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tradewind.agent import faults
from tradewind.errors import TradewindError


def test_one_bit_is_flipped(tmp_path: Path) -> None:
    """Exactly the bit that is named differs afterwards, and the same seed names the same one."""
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    bit = faults.corrupt_file(path, random.Random(3))
    found = path.read_bytes()
    assert int.from_bytes(found, "little") == 1 << bit
    assert faults.corrupt_file(path, random.Random(3)) == bit
    assert path.read_bytes() == bytes(100)


def test_nothing_to_corrupt_is_said(tmp_path: Path) -> None:
    """An empty file and a folder without checkpoints are errors that name them."""
    (tmp_path / "empty").touch()
    with pytest.raises(TradewindError, match="empty is empty"):
        faults.corrupt_file(tmp_path / "empty", random.Random(0))
    with pytest.raises(TradewindError, match="holds no checkpoint"):
        faults.newest_file(tmp_path)


def test_the_newest_checkpoint_is_chosen(tmp_path: Path) -> None:
    """Of several checkpoints the largest file of the newest is taken; one being written is left alone."""
    for folder, size in (
        ("step-000000000002", 9),
        ("step-000000000010", 5),
        (".writing-step-000000000012", 99),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "shared.safetensors").write_bytes(bytes(size))
        (tmp_path / folder / "manifest.json").write_bytes(b"x")
    assert faults.newest_file(tmp_path) == tmp_path / "step-000000000010" / "shared.safetensors"


def test_the_disk_of_others_is_never_filled(tmp_path: Path) -> None:
    """A file system of more than 2 GiB is refused, and nothing is written to it."""
    system = os.statvfs(tmp_path)
    if system.f_blocks * system.f_frsize <= 2 * 2**30:
        pytest.skip("the temporary folder lies on a file system too small for this test")
    with pytest.raises(TradewindError, match="mount a small one"):
        faults.fill_disk(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("A FULL DISK IS NOT TESTED: mounting a small tmpfs needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_has_no_room_until_it_is_undone(small_disk: Path) -> None:
    """While it lasts a byte cannot be written; afterwards it can."""
    undo = faults.fill_disk(small_disk)
    with pytest.raises(OSError) as caught:
        (small_disk / "file").write_bytes(b"x")
    assert caught.value.errno == errno.ENOSPC
    undo()
    (small_disk / "file").write_bytes(b"x")


def test_a_slow_disk_is_busy_until_it_is_undone(tmp_path: Path) -> None:
    """While it lasts a file is rewritten in the folder, and nothing is left of it afterwards."""
    undo = faults.slow_disk(tmp_path)
    while not any(file.stat().st_size for file in tmp_path.iterdir()):
        pass
    undo()
    assert list(tmp_path.iterdir()) == []


ECHO = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]
client = socket.create_connection(("127.0.0.1", port))
peer, _ = server.accept()
peer.settimeout(0.3)
print("ready", flush=True)
for line in sys.stdin:
    client.send(line.encode())
    while True:
        try:
            print(peer.recv(100).decode().strip(), flush=True)
            break
        except TimeoutError:
            print("silence", flush=True)
            sys.stdin.readline()
"""


@pytest.fixture
def network() -> Iterator[str]:
    """A network namespace with a loopback of its own."""
    name = f"tradewind-{os.getpid()}"
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("PARTITIONS ARE NOT TESTED: they need root and the ip command")
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        pytest.skip("PARTITIONS ARE NOT TESTED: this kernel gives no network namespaces")
    try:
        faults.ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        faults.ip("netns", "del", name)


def test_a_partition_silences_connections_and_heals(network: str) -> None:
    """Open connections in the namespace carry nothing while it is cut, and what was sent arrives after."""
    with subprocess.Popen(
        ["ip", "netns", "exec", network, sys.executable, "-c", ECHO],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        said = iter(process.stdout.readline, "")
        assert next(said) == "ready\n"
        process.stdin.write("before\n")
        assert next(said) == "before\n"
        heal = faults.cut_network(process.pid)
        process.stdin.write("during\n")
        assert next(said) == "silence\n"
        heal()
        process.stdin.write("go on\n")
        answer = next(said)
        while answer == "silence\n":
            process.stdin.write("go on\n")
            answer = next(said)
        assert answer == "during\n"
        process.stdin.close()
        assert process.wait(10) == 0


def test_the_machines_own_network_is_never_cut() -> None:
    """A process outside any named namespace is refused with the way to start it in one."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and the ip command")
    with pytest.raises(TradewindError, match="ip netns exec NAME"):
        faults.cut_network(os.getpid())
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
