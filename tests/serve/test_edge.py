"""TLS, API keys and quotas on both ports of a real server process, and their renewal while it runs."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator

import grpc
import httpx2
import numpy as np
import pytest

from tests.serve.certificates import Authority, needs_openssl
from tests.serve.conftest import COMMAND, Server, running
from tradewind.serve.grpc.messages import REQUESTS, RESPONSES
from tradewind.serve.keys import new_key

SERVICE = "/inference.GRPCInferenceService/"
LOOKUP = "/v2/models/lookup/infer"
BODY = {"inputs": [{"name": "ids", "shape": [1, 2], "datatype": "INT64", "data": [1, 2]}]}
SHOP, LAB = new_key(), new_key()
KEYS = f"""
tenants:
  shop:
    keys: ["{SHOP.sha256}"]
  lab:
    keys: ["{LAB.sha256}"]
    requests_per_s: 0.001
    burst: 1
    max_request_mib: 0.01
"""


class Lookup:
    """Calls of one model over gRPC."""

    def __init__(self, server: Server, credentials: grpc.ChannelCredentials | None = None) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channel = (
            grpc.insecure_channel(server.grpc, options)
            if credentials is None
            else grpc.secure_channel(server.grpc, credentials, options)
        )
        message = REQUESTS["ModelInfer"](model_name="lookup")
        message.inputs.add(name="ids", datatype="INT64", shape=[1, 2]).contents.int64_contents.extend([1, 2])
        self.message = message.SerializeToString()

    def __enter__(self) -> "Lookup":
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def infer(self, key: str | None = None, **options: object) -> np.ndarray:
        metadata = (("authorization", f"Bearer {key}"),) if key else ()
        call = self.channel.unary_unary(SERVICE + "ModelInfer")
        answer = RESPONSES["ModelInfer"].FromString(
            call(self.message, timeout=60, metadata=metadata, **options)
        )
        return np.array(answer.outputs[0].contents.fp32_contents)

    def live(self) -> bool:
        return (
            RESPONSES["ServerLive"]
            .FromString(self.channel.unary_unary(SERVICE + "ServerLive")(b"", timeout=60))
            .live
        )


@contextlib.contextmanager
def refused(code: grpc.StatusCode) -> Iterator[list[grpc.RpcError]]:
    caught: list[grpc.RpcError] = []
    with pytest.raises(grpc.RpcError) as error:
        yield caught
    assert error.value.code() == code, error.value
    caught.append(error.value)


@pytest.fixture(scope="module")
def keyed(generic: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with keys, every request logged."""
    home = tmp_path_factory.mktemp("keyed")
    (home / "keys.yaml").write_text(KEYS)
    flags = ("--slo", "30s", "--grpc-port", "0", "--keys", str(home / "keys.yaml"), "--access-log", "all")
    with running(generic, home, *flags) as server:
        yield server


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_without_a_key_only_health_is_answered(keyed, client):
    """401 that says what to send; the same over gRPC."""
    assert client.get(keyed.url + "/v2/health/ready").status_code == 200
    for path in ("/v2", "/metrics", "/v2/models/lookup", "/nothing"):
        assert client.get(keyed.url + path).status_code == 401
    refusal = client.post(keyed.url + LOOKUP, json=BODY)
    assert refusal.status_code == 401
    assert "Bearer" in refusal.json()["error"]
    with Lookup(keyed) as lookup:
        assert lookup.live()
        with refused(grpc.StatusCode.UNAUTHENTICATED):
            lookup.infer()
        with refused(grpc.StatusCode.UNAUTHENTICATED):
            lookup.infer("wrong")


def test_a_key_opens_both_ports(keyed, client):
    """With the header of either name."""
    assert client.post(keyed.url + LOOKUP, json=BODY, headers=bearer(SHOP.key)).status_code == 200
    assert client.post(keyed.url + LOOKUP, json=BODY, headers={"x-api-key": SHOP.key}).status_code == 200
    with Lookup(keyed) as lookup:
        assert lookup.infer(SHOP.key).size == 8


def test_a_tenants_quota_is_named_and_is_its_own(keyed, client):
    """429 with Retry-After for the one, answers for the other; what is too large is refused by its head."""
    first, second = (client.post(keyed.url + LOOKUP, json=BODY, headers=bearer(LAB.key)) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 429)
    assert "quota 'requests_per_s' of tenant 'lab'" in second.json()["error"]
    assert int(second.headers["retry-after"]) > 900
    with Lookup(keyed) as lookup:
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED) as caught:
            lookup.infer(LAB.key)
        assert int(dict(caught[0].trailing_metadata())["retry-after"]) > 900
        assert lookup.infer(SHOP.key).size == 8
    large = client.post(keyed.url + LOOKUP, content=bytes(20_000), headers=bearer(LAB.key))
    assert large.status_code == 413


def test_a_body_without_a_key_is_not_waited_for(keyed):
    """The answer comes after the head: nobody unknown makes the server hold megabytes."""
    host, port = keyed.address.split(":")
    with socket.create_connection((host, int(port)), 60) as sock:
        sock.sendall(f"POST {LOOKUP} HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\n".encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_keys_are_in_no_log_line(keyed):
    """Nor are their digests."""
    written = keyed.log.read_text()
    assert "lookup" in written or "infer" in written
    for key in (SHOP, LAB):
        assert key.key not in written
        assert key.sha256 not in written


def test_keys_are_renewed_while_serving(keyed, client):
    """A broken file changes nothing; a whole one does, on SIGHUP at once."""
    path = keyed.log.parent / "keys.yaml"
    path.write_text("tenants: [")
    keyed.process.send_signal(signal.SIGHUP)
    until_logged(keyed, "not renewed")
    assert client.get(keyed.url + "/v2", headers=bearer(SHOP.key)).status_code == 200
    fresh = new_key()
    path.write_text(KEYS.replace(SHOP.sha256, fresh.sha256))
    keyed.process.send_signal(signal.SIGHUP)
    until_logged(keyed, "renewed")
    assert client.get(keyed.url + "/v2", headers=bearer(SHOP.key)).status_code == 401
    assert client.get(keyed.url + "/v2", headers=bearer(fresh.key)).status_code == 200


def until_logged(server: Server, event: str) -> None:
    """Wait until the server has logged it."""
    while event not in [line["event"] for line in server.lines]:
        pass


def test_a_file_of_keys_that_cannot_be_used_ends_the_server_at_once(generic, tmp_path):
    """A usage error that names it, before anything is loaded."""
    env = os.environ | {"TRADEWIND_HOME": str(tmp_path)}
    command = [sys.executable, "-c", COMMAND, "serve", str(generic), "--keys", str(tmp_path / "none.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert done.returncode == 2
    assert "none.yaml" in done.stderr


def test_the_command_makes_a_key_that_opens(tmp_path):
    """What it prints is the key and the digest of that key."""
    command = [sys.executable, "-c", COMMAND, "keys", "new", "shop", "-o", "json"]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    from tradewind.serve.keys import digest_of

    assert said["tenant"] == "shop"
    assert digest_of(said["key"]) == said["sha256"]


@needs_openssl
def test_tls_on_both_ports_and_its_renewal(generic, tmp_path):
    """Plain text is turned away; a new certificate is shown without a restart."""
    authority = Authority(tmp_path, "authority")
    first, second = authority.sign("first"), authority.sign("second")
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    cert.write_bytes(first.cert.read_bytes())
    key.write_bytes(first.key.read_bytes())
    flags = ("--slo", "30s", "--grpc-port", "0", "--tls-cert", str(cert), "--tls-key", str(key))
    trusted = ssl.create_default_context(cafile=authority.cert)
    credentials = grpc.ssl_channel_credentials(authority.cert.read_bytes())
    with running(generic, tmp_path, *flags) as server:
        assert server.url.startswith("https://")
        with httpx2.Client(trust_env=False, timeout=60, verify=trusted) as client:
            for _ in range(3):
                assert client.post(server.url + LOOKUP, json=BODY).status_code == 200
            closing = client.post(server.url + LOOKUP, json=BODY, headers={"connection": "close"})
            assert closing.status_code == 200
        with Lookup(server, credentials) as lookup:
            assert lookup.infer().size == 8
        with pytest.raises(httpx2.TransportError):
            httpx2.get(server.url.replace("https", "http") + "/v2")
        assert common_name(server, trusted) == "first"
        key.write_bytes(second.key.read_bytes())  # does not fit the certificate: not used
        server.process.send_signal(signal.SIGHUP)
        until_logged(server, "not renewed")
        assert common_name(server, trusted) == "first"
        cert.write_bytes(second.cert.read_bytes())
        server.process.send_signal(signal.SIGHUP)
        until_logged(server, "renewed")
        assert common_name(server, trusted) == "second"
        assert common_name(server, trusted, grpc_port=True) == "second"
        assert server.terminate() == 0


def common_name(server: Server, context: ssl.SSLContext, grpc_port: bool = False) -> str:
    """Of the certificate that a port shows."""
    host, port = (server.grpc if grpc_port else server.address).rsplit(":", 1)
    if grpc_port:
        context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), 60) as sock,
        context.wrap_socket(sock, server_hostname=host) as tls,
    ):
        return dict(pair[0] for pair in tls.getpeercert()["subject"])["commonName"]


@needs_openssl
def test_clients_show_certificates_where_they_are_asked_to(generic, tmp_path):
    """On both ports; one that another authority signed is as good as none."""
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    served, friend, stranger = ours.sign("server"), ours.sign("friend"), other.sign("stranger")
    flags = ("--slo", "30s", "--grpc-port", "0", "--tls-client-ca", str(ours.cert))
    with running(
        generic, tmp_path, *flags, "--tls-cert", str(served.cert), "--tls-key", str(served.key)
    ) as server:
        for signed, welcome in ((friend, True), (stranger, False), (None, False)):
            context = ssl.create_default_context(cafile=ours.cert)
            pem = (None, None) if signed is None else (signed.key.read_bytes(), signed.cert.read_bytes())
            if signed is not None:
                context.load_cert_chain(*signed)
            credentials = grpc.ssl_channel_credentials(ours.cert.read_bytes(), *pem)
            with (
                httpx2.Client(trust_env=False, timeout=60, verify=context) as client,
                Lookup(server, credentials) as lookup,
            ):
                if welcome:
                    assert client.get(server.url + "/v2").status_code == 200
                    assert lookup.infer().size == 8
                else:
                    with pytest.raises(httpx2.TransportError):
                        client.get(server.url + "/v2")
                    with refused(grpc.StatusCode.UNAVAILABLE):
                        lookup.infer()
