"""The CustomResourceDefinitions of operators that render targets are for, in a real API server."""

import os
import pathlib
import time

import pytest

from tests.services.kube_api import ApiError
from tests.services.kubernetes import ControlPlane

KINDS = {
    "localqueues.kueue.x-k8s.io": "kueue.x-k8s.io/v1beta2",
    "jobsets.jobset.x-k8s.io": "jobset.x-k8s.io/v1alpha2",
    "trainjobs.trainer.kubeflow.org": "trainer.kubeflow.org/v1alpha1",
    "trainingruntimes.trainer.kubeflow.org": "trainer.kubeflow.org/v1alpha1",
    "rayjobs.ray.io": "ray.io/v1",
}
"""Definition -> the version under which it is served."""
_WAIT_S = 60.0


def folder() -> pathlib.Path | None:
    """Where they lie: `KUBERNETES_CRDS`, else in or beside `KUBEBUILDER_ASSETS`."""
    assets = pathlib.Path(os.environ.get("KUBEBUILDER_ASSETS") or "/nowhere")
    given = os.environ.get("KUBERNETES_CRDS")
    for path in (pathlib.Path(given or "/nowhere"), assets / "crds", assets.parent / "crds"):
        if path.is_dir():
            return path
    return None


@pytest.fixture(scope="session")
def crds(kubernetes: ControlPlane) -> ControlPlane:
    """The control plane `kubernetes` once it serves Kueue's, JobSet's, Trainer's and KubeRay's kinds."""
    found = folder()
    if found is None:
        pytest.skip("JOBSET, TRAINJOB, RAYJOB AND KUEUE ARE NOT TESTED: no CRDs in KUBERNETES_CRDS")
    for name in KINDS:
        plural, _, group = name.partition(".")
        define(kubernetes, name, found / f"{group}_{plural}.yaml")
    for name, version in KINDS.items():
        until_served(kubernetes, version, name.partition(".")[0])
    return kubernetes


def define(plane: ControlPlane, name: str, file: pathlib.Path) -> None:
    """Send a definition as it is written: some take a minute to parse here, and the API server reads YAML."""
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
    headers = {"Content-Type": "application/apply-patch+yaml"}
    params = {"fieldManager": "test", "force": "true"}
    plane.api.call("PATCH", path, content=file.read_bytes(), params=params, headers=headers)


def until_served(plane: ControlPlane, version: str, plural: str) -> None:
    """Return once objects of a kind can be made."""
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end:
        try:
            resources = plane.api.get(f"/apis/{version}")["resources"]
        except ApiError:
            resources = []
        if any(resource["name"] == plural for resource in resources):
            return
        time.sleep(0.1)  # A watch would send the whole schemas, megabytes each, on every change.
    raise TimeoutError(f"{plural} of {version} is not served after {_WAIT_S:g} s")
