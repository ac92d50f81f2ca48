"""Several hosts on one machine: network namespaces on one switch, whose cables can be pulled."""

import ctypes
import itertools
import os
import shutil
import socket
import string
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_CLONE_NEWNET = 0x40000000
_LETTERS = itertools.cycle(string.ascii_lowercase)
"""Each network of a process has names of its own."""
_libc = ctypes.CDLL(None, use_errno=True)


class Network:
    """Namespaces with addresses 10.77.N.1, 10.77.N.2, ... on a bridge in a namespace of its own."""

    def __init__(self, hosts: int) -> None:
        self._tag = f"tw{os.getpid() % 100000}{next(_LETTERS)}"
        self._switch = f"{self._tag}s"
        self.names = [f"{self._tag}h{index}" for index in range(hosts)]
        subnet = f"10.77.{os.getpid() % 250}"
        self.addresses = [f"{subnet}.{index + 1}" for index in range(hosts)]

    def build(self) -> None:
        """Make the switch and plug every host into it."""
        ip("netns", "add", self._switch)
        ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self._switch, "link", "set", "bridge", "up")
        for index, (name, address) in enumerate(zip(self.names, self.addresses, strict=True)):
            cable = f"c{index}"
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            ip(
                "-n",
                name,
                "link",
                "add",
                "eth0",
                "type",
                "veth",
                "peer",
                "name",
                cable,
                "netns",
                self._switch,
            )
            ip("-n", self._switch, "link", "set", cable, "master", "bridge")
            ip("-n", self._switch, "link", "set", cable, "up")
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")

    def pull(self, index: int) -> None:
        """Cut a host off: nothing comes or goes, and nobody is told."""
        ip("-n", self._switch, "link", "set", f"c{index}", "down")

    def plug(self, index: int) -> None:
        """Connect it again."""
        ip("-n", self._switch, "link", "set", f"c{index}", "up")

    def connect(self, index: int, address: str, port: int, timeout_s: float = 5.0) -> socket.socket:
        """A connection made from a host: a socket stays in the network in which it was made."""
        with open("/proc/thread-self/ns/net") as own, open(f"/run/netns/{self.names[index]}") as there:
            _enter(there.fileno())
            try:
                made = socket.socket()
            finally:
                _enter(own.fileno())
        made.settimeout(timeout_s)
        try:
            # Past the guard that keeps tests on loopback: this network is on this machine too.
            super(socket.socket, made).connect((address, port))
        except OSError:
            made.close()
            raise
        return made

    def command(self, index: int, *command: str) -> list[str]:
        """This command, run on a host."""
        return ["ip", "netns", "exec", self.names[index], *command]

    def remove(self) -> None:
        """Take everything down."""
        for name in (*self.names, self._switch):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _enter(namespace: int) -> None:
    """Take this thread, and no other, into a network namespace."""
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns failed")


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True)


@contextmanager
def network(hosts: int) -> Iterator[Network]:
    """A network of so many hosts; the test is skipped where namespaces may not be made."""
    if shutil.which("ip") is None:
        pytest.skip("NOT TESTED: several hosts need `ip` (Debian's iproute2)")
    built = Network(hosts)
    try:
        try:
            built.build()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"NOT TESTED: no network namespaces here: {error.stderr.strip()}")
        yield built
    finally:
        built.remove()
