"""Certificates are checked before they are used."""

import pathlib
import ssl
import subprocess

import pytest

from tests.serve.certificates import OPENSSL, Authority, needs_openssl
from tradewind.errors import SpecError
from tradewind.serve.tls import Certificates
from tradewind.spec import TLS

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An authority, `a` and `b` signed by it, and the key of `a` under a passphrase."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder, "ca")
    for name in ("a", "b"):
        authority.sign(name)
    command = [str(OPENSSL), "ec", "-in", str(folder / "ca-a.key"), "-aes256", "-passout", "pass:x"]
    subprocess.run([*command, "-out", str(folder / "locked.key")], check=True, capture_output=True)
    (folder / "no.pem").write_text("no certificate")
    return folder


def certificates(folder: pathlib.Path, cert: str, key: str, client_ca: str | None = None) -> Certificates:
    ca = None if client_ca is None else str(folder / client_ca)
    return Certificates(TLS(cert=str(folder / cert), key=str(folder / key), client_ca=ca))


def test_nothing_older_than_tls_1_2_and_no_renegotiation(folder):
    """Nor compression; clients need no certificate unless they are asked for one."""
    context = certificates(folder, "ca-a.pem", "ca-a.key").context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.verify_mode == ssl.CERT_NONE
    asking = certificates(folder, "ca-a.pem", "ca-a.key", "ca.pem").context
    assert asking.verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("cert", "key", "client_ca"),
    [
        ("ca-a.pem", "ca-b.key", None),
        ("ca-a.pem", "locked.key", None),
        ("no.pem", "ca-a.key", None),
        ("missing.pem", "ca-a.key", None),
        ("ca-a.pem", "ca-a.key", "no.pem"),
        ("ca-a.pem", "ca-a.key", "missing.pem"),
    ],
)
def test_files_that_cannot_be_used_are_named(folder, cert, key, client_ca):
    """A key of another certificate, a locked one, no PEM, no file."""
    with pytest.raises(SpecError, match="cannot use the TLS files") as caught:
        certificates(folder, cert, key, client_ca)
    assert str(folder / cert) in str(caught.value)
