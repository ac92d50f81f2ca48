"""https endpoints: their certificates are checked."""

import asyncio
import pathlib
import ssl
import subprocess

import pytest

from tests.services.scripted import scripted_server
from tradewind.client import AsyncClient, Options, Unreachable


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, pathlib.Path]:
    """A certificate of 127.0.0.1, signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=endpoint -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        [*command.split(), "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True
    )
    return cert, key


def ask(url: str, options: Options) -> str:
    async def main() -> str:
        async with AsyncClient(url, options) as client:
            return (await client.recommend(["1"])).items[0].item

    return asyncio.run(main())


def test_a_trusted_endpoint_is_called_and_a_stranger_is_not(
    certificate: tuple[pathlib.Path, pathlib.Path],
) -> None:
    """With its authority the call works; with the system's own nothing is sent."""
    cert, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    options = Options(deadline_ms=60_000)
    with scripted_server("ok", tls=context) as server:
        trusted = ssl.create_default_context(cafile=str(cert))
        assert ask(server.url, options._replace(tls=trusted)) == "a"
        with pytest.raises(Unreachable, match="certificate"):
            ask(server.url, options)
        assert len(server.seen) == 1
