"""What goes to a Ray cluster and how its answers are read, without a cluster."""

import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.launch.conftest import write
from tests.launch.kubernetes.builders import request
from tradewind.errors import ClusterError, SpecError
from tradewind.launch.kubernetes.targets import render
from tradewind.launch.kubernetes.unpack import unpack
from tradewind.launch.ray.context import RayContext, address_of, load_ray_context
from tradewind.launch.ray.driver import bundle, read_description
from tradewind.launch.ray.job_api import JobApi, read_token
from tradewind.launch.ray.package import RUN, SNAPSHOT, package
from tradewind.launch.ray.status import observe
from tradewind.launch.snapshot import snapshot
from tradewind.spec import Resources, RunSpec
from tradewind.store.blobs import LocalBlobs

ENDS: list[tuple[dict[str, Any] | None, str, int | None]] = [
    ({"status": "PENDING"}, "pending", None),
    ({"status": "RUNNING", "start_time": 1000}, "running", None),
    ({"status": "SUCCEEDED", "driver_exit_code": 0, "end_time": 2000}, "succeeded", 0),
    ({"status": "FAILED", "driver_exit_code": 75}, "requeued", 75),
    ({"status": "FAILED", "driver_exit_code": 65}, "failed", 65),
    ({"status": "FAILED", "driver_exit_code": 130}, "stopped", 130),
    ({"status": "FAILED", "driver_exit_code": None}, "failed", 1),
    ({"status": "STOPPED"}, "stopped", 130),
    (None, "failed", 1),
]


@pytest.mark.parametrize(("job", "state", "code"), ENDS)
def test_how_a_run_is_follows_from_its_job(job: dict[str, Any] | None, state: str, code: int | None) -> None:
    """Every status of Ray's, with the driver's exit code, is one of the store's states."""
    seen = observe(job)
    assert (seen["state"], seen["exit_code"]) == (state, code)


def test_a_package_has_the_code_and_equal_code_has_one_name(root: Path, tmp_path: Path) -> None:
    """What is unpacked from it is the project, and it is named by its content."""
    write(root, {"train.py": "print(1)\n", "lib/x.py": "x = 1\n"})
    blobs = LocalBlobs(tmp_path / "blobs")
    digest = snapshot(root, blobs)
    name, data = package({"id": "a"}, digest, blobs)
    assert package({"id": "a"}, digest, blobs) == (name, data)
    assert package({"id": "b"}, digest, blobs)[0] != name
    zipfile.ZipFile(BytesIO(data)).extractall(tmp_path / "parts")
    assert json.loads((tmp_path / "parts" / RUN).read_text()) == {"id": "a"}
    unpack(
        json.loads((tmp_path / "parts" / SNAPSHOT).read_text()),
        str(tmp_path / "parts"),
        str(tmp_path / "out"),
    )
    assert (tmp_path / "out/lib/x.py").read_text() == "x = 1\n"


def test_which_cluster_is_meant(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address, a name with a file, or Ray's own variable; everything else is refused by name."""
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert address_of(load_ray_context("ray")) == "http://127.0.0.1:8265"
    assert address_of(load_ray_context("ray:http://head:8265/")) == "http://head:8265"
    assert address_of(load_ray_context("ray:10.0.0.1:9000")) == "http://10.0.0.1:9000"
    write(home, {"contexts/big.yaml": "address: https://big:443\nstrategy: PACK\n"})
    assert load_ray_context("ray:big") == RayContext(address="https://big:443", strategy="PACK")
    for on in ("ray:none", "ray:../x", "rays", "ray:http://"):
        with pytest.raises(SpecError, match=on):
            load_ray_context(on)


def test_what_a_host_is_asked_for() -> None:
    """Ray's words for a host's share, and nothing that was not asked for but one CPU."""
    assert bundle(RunSpec(script="x")) == {"CPU": 1.0}
    need = Resources(cpus=2, gpus=1, memory_gib=4, gpu_type="H100")
    assert bundle(RunSpec(script="x", workers=4, hosts=2, resources=need)) == {
        "CPU": 4.0,
        "GPU": 2.0,
        "memory": 8.0 * 2**30,
        "accelerator_type:H100": 0.001,
    }


def test_the_driver_reads_what_a_ray_job_manifest_holds(tmp_path: Path) -> None:
    """The run's description in a RayJob's ConfigMap is one for the driver, with the defaults of a cluster of its own."""
    config = next(o for o in render("rayjob", request()) if o["kind"] == "ConfigMap" and "data" in o)
    (tmp_path / RUN).write_text(config["data"][RUN])
    found = read_description(tmp_path / RUN)
    assert found.ray.strategy == "STRICT_SPREAD"
    assert found.spec["script"]
    (tmp_path / RUN).write_text("{}")
    with pytest.raises(SpecError, match=RUN):
        read_description(tmp_path / RUN)


def test_the_token_is_where_rays_client_looks(tmp_path: Path) -> None:
    """The variable, then the file that is named; no file is no token."""
    (tmp_path / "token").write_text("secret\n")
    path = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    assert read_token({"RAY_AUTH_TOKEN": "first"} | path) == "first"
    assert read_token(path) == "secret"
    assert read_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}) == ""


def test_a_cluster_that_is_not_there_is_named() -> None:
    """Nobody listens: the error says where."""
    with JobApi("http://127.0.0.1:9") as api, pytest.raises(ClusterError, match=r"127\.0\.0\.1:9: "):
        api.job("x")
