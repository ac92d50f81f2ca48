"""Certificates for tests, made with the openssl command: an authority of our own, and what it signs."""

import pathlib
import shutil
import subprocess
from typing import NamedTuple

import pytest

OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="NO TLS TESTED: there is no openssl command here")


class Signed(NamedTuple):
    """A certificate and its key, as PEM files."""

    cert: pathlib.Path
    key: pathlib.Path


class Authority:
    """Signs certificates for loopback."""

    def __init__(self, folder: pathlib.Path, name: str) -> None:
        self._folder, self._name = folder, name
        self.cert, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        self._openssl(
            *(
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
            ),
            *("-subj", f"/CN={name}", "-keyout", self._key, "-out", self.cert),
        )

    def sign(self, name: str) -> Signed:
        """A certificate for 127.0.0.1 and localhost, of that common name."""
        cert, key, request = (
            self._folder / f"{self._name}-{name}.{ending}" for ending in ("pem", "key", "csr")
        )
        names = self._folder / "names"
        names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        self._openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", key, "-out", request),
        )
        self._openssl(
            *(
                "x509",
                "-req",
                "-in",
                request,
                "-CA",
                self.cert,
                "-CAkey",
                self._key,
                "-CAcreateserial",
                "-days",
                "2",
            ),
            *("-extfile", names, "-out", cert),
        )
        return Signed(cert, key)

    def _openssl(self, *arguments: object) -> None:
        subprocess.run([str(OPENSSL), *map(str, arguments)], check=True, capture_output=True)
