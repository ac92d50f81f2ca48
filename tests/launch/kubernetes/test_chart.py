"""The Helm chart: linted by helm itself, as it was read last, and every object taken by a real API server."""

import pathlib
import subprocess
from typing import Any

import pytest
import yaml

from tests.services import crds as definitions
from tests.services.kubernetes import ControlPlane, binary
from tradewind.launch.kubernetes.context import Context
from tradewind.spec import decode

ROOT = pathlib.Path(__file__).parents[3]
CHART = ROOT / "deploy" / "helm" / "tradewind"
GOLDEN = pathlib.Path(__file__).with_name("golden")
VALUES = {
    "plain": {},
    "everything": {
        "launcher": {"subjects": [{"kind": "Group", "name": "ml", "apiGroup": "rbac.authorization.k8s.io"}]},
        "priorityClasses": {"create": True},
        "quota": {"requests.nvidia.com/gpu": 16, "pods": 100},
        "kueue": {
            "create": True,
            "clusterQueue": {"create": True, "cohort": "all"},
            "priorities": {"high": 100},
        },
        "store": {"url": "postgresql+psycopg://db/tradewind", "blobs": "s3://bucket/blobs"},
        "volume": {"create": True, "storageClassName": "shared"},
        "context": {"trainImage": "registry.example/train:1"},
    },
}
"""By the name of their golden file."""


def helm(*args: str) -> str:
    """Run helm; the test is skipped where it is missing."""
    program = binary("helm")
    if program is None:
        pytest.skip("THE HELM CHART IS NOT TESTED: helm neither in KUBEBUILDER_ASSETS nor on the PATH")
    done = subprocess.run([program, *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rendered(name: str, folder: pathlib.Path) -> str:
    """The chart with these values."""
    (folder / "values.yaml").write_text(yaml.safe_dump(VALUES[name]))
    return helm("template", "team-a", str(CHART), "-n", "team-a", "-f", str(folder / "values.yaml"))


def objects(text: str) -> list[dict[str, Any]]:
    """The objects of a YAML stream."""
    return [found for found in yaml.safe_load_all(text) if found]


@pytest.mark.parametrize("name", VALUES)
def test_the_chart_is_as_it_was_read_last(name: str, tmp_path: pathlib.Path) -> None:
    """`helm template` prints the golden file."""
    golden = GOLDEN / f"chart-{name}.yaml"
    assert rendered(name, tmp_path) == golden.read_text()


def test_helm_finds_no_fault() -> None:
    """`helm lint --strict`."""
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


@pytest.mark.parametrize("name", VALUES)
def test_a_real_api_server_takes_every_object(crds: ControlPlane, name: str, tmp_path: pathlib.Path) -> None:
    """Server-side dry run with strict fields, Kueue's objects against its own schemas."""
    folder = definitions.folder()
    assert folder is not None, "the fixture `crds` has it"
    for plural in ("clusterqueues", "resourceflavors", "workloadpriorityclasses"):
        definitions.define(crds, f"{plural}.kueue.x-k8s.io", folder / f"kueue.x-k8s.io_{plural}.yaml")
        definitions.until_served(crds, "kueue.x-k8s.io/v1beta2", plural)
    for found in objects(rendered(name, tmp_path)):
        crds.api.apply(found, "default", dry_run=True)


def test_the_rules_are_those_of_the_plain_manifest(tmp_path: pathlib.Path) -> None:
    """Who applies deploy/kubernetes/rbac.yaml and who installs the chart may do the same."""
    plain = (ROOT / "deploy/kubernetes/rbac.yaml").read_text()
    roles = [
        {m["metadata"]["name"]: m["rules"] for m in objects(text) if m["kind"] == "Role"}
        for text in (plain, rendered("plain", tmp_path))
    ]
    assert roles[0] == roles[1]
    assert set(roles[0]) == {"tradewind-launcher", "tradewind-deployer"}


def test_the_context_can_be_used_as_it_is(tmp_path: pathlib.Path) -> None:
    """What the chart writes for launchers is a context, and names what the chart made."""
    found = objects(rendered("everything", tmp_path))
    (text,) = [
        m["data"]["k8s.yaml"]
        for m in found
        if m["kind"] == "ConfigMap" and m["metadata"]["name"] == "team-a-context"
    ]
    context = decode(Context, text)
    made = {(m["kind"], m["metadata"]["name"]) for m in found}
    assert ("LocalQueue", context.placement.queue) in made
    assert ("PersistentVolumeClaim", context.volumes[0].claim) in made
    assert ("Secret", context.secrets[0]) in made
