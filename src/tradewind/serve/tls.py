"""TLS for the ports of a replica: read, checked before they are used, and read again when the files change."""

import pathlib
import ssl
from typing import NamedTuple

from tradewind.errors import SpecError
from tradewind.spec import TLS


class Files(NamedTuple):
    """PEM: the certificate with its chain, its key, and who may sign clients' certificates."""

    cert: bytes
    key: bytes
    client_ca: bytes | None


class Certificates:
    """What the files held when they were last whole."""

    def __init__(self, spec: TLS) -> None:
        self._spec = spec
        self.files: Files
        self.context: ssl.SSLContext
        self.load()

    @property
    def paths(self) -> list[pathlib.Path]:
        named = (self._spec.cert, self._spec.key, self._spec.client_ca)
        return [pathlib.Path(path) for path in named if path is not None]

    def load(self) -> None:
        """Read the files. Raises SpecError naming the file, and changes nothing, where one cannot be used."""
        cert, key, *rest = self.paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(cert, key, _no_passphrase)
            for client_ca in rest:
                context.load_verify_locations(client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
            files = Files(cert.read_bytes(), key.read_bytes(), rest[0].read_bytes() if rest else None)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            named = ", ".join(map(str, self.paths))
            raise SpecError(f"cannot use the TLS files {named}: {error}; they must be PEM, and fit") from None
        self.files, self.context = files, context


def _no_passphrase() -> str:
    raise ValueError("the key is encrypted; give one without a passphrase")
