"""A real S3 server over a folder: versitygw, found through KUBEBUILDER_ASSETS or the PATH."""

import contextlib
import os
import pathlib
import secrets
import shutil
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.services.ports import free_port

ACCESS_KEY, SECRET_KEY = "test", "testsecret"


def binary() -> str | None:
    """The path of versitygw."""
    return shutil.which("versitygw", path=os.environ.get("KUBEBUILDER_ASSETS")) or shutil.which("versitygw")


@contextlib.contextmanager
def s3(folder: pathlib.Path) -> Iterator[str]:
    """A server whose buckets are the folders in `folder`; gives its endpoint."""
    program = binary()
    if program is None:
        pytest.skip("S3 IS NOT TESTED: versitygw is neither in KUBEBUILDER_ASSETS nor on the PATH")
    data, meta = folder / "data", folder / "meta"
    data.mkdir()
    meta.mkdir()
    port = free_port()
    server = subprocess.Popen(
        [program, "--port", f"127.0.0.1:{port}", "posix", "--sidecar", str(meta), str(data)],
        env={"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    said = []
    for line in server.stdout:
        said.append(line)
        if f"http://127.0.0.1:{port}" in line:
            break
    else:
        raise RuntimeError(f"versitygw did not start:\n{''.join(said)}")
    drain = threading.Thread(target=server.stdout.read, daemon=True)
    drain.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
        drain.join()
        server.stdout.close()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, pathlib.Path]]:
    """Endpoint of an S3 server and the folder that holds its buckets; one server for all tests."""
    folder = tmp_path_factory.mktemp("s3")
    with s3(folder) as endpoint:
        yield endpoint, folder / "data"


@pytest.fixture
def s3_bucket(
    s3_server: tuple[str, pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> tuple[str, pathlib.Path]:
    """URL of an empty bucket of this test's own and its folder; the environment has its credentials."""
    endpoint, folder = s3_server
    name = f"bucket-{secrets.token_hex(6)}"
    (folder / name).mkdir()
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return f"s3://{name}/blobs", folder / name
