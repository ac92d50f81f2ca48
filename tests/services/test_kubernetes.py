"""The control plane that other tests stand on: what it runs, what it refuses, what it leaves behind."""

from tests.services.kubernetes import ControlPlane


def job(name: str, hosts: int, gpus: int) -> dict[str, object]:
    resources = {"limits": {"nvidia.com/gpu": str(gpus)}}
    container = {"name": "main", "image": "train:1", "resources": resources}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    template |= {"metadata": {"annotations": {"tradewind.test/run-for": "10ms"}}}
    spec = {"completions": hosts, "parallelism": hosts, "completionMode": "Indexed", "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def test_a_job_is_scheduled_and_ends(kwok: ControlPlane, namespace: str) -> None:
    """The Job controller makes a job's pods, the scheduler binds them to kwok's nodes, and the job completes."""
    names = [f"{namespace}-{number}" for number in range(2)]
    for name in names:
        kwok.add_node(name, gpus=1)
    kwok.api.create(job("train", hosts=2, gpus=1), namespace)
    jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    done = kwok.api.wait(jobs, lambda found: found[0].get("status", {}).get("succeeded") == 2)
    assert done[0]["status"]["completedIndexes"] == "0,1"
    pods = kwok.api.items(f"/api/v1/namespaces/{namespace}/pods")
    assert {pod["spec"]["nodeName"] for pod in pods} <= {
        *names
    }  # Both on one, where the first was quick to end.
    for name in names:
        kwok.api.delete(f"/api/v1/nodes/{name}")


def test_a_gang_that_does_not_fit_waits_as_a_whole(kwok: ControlPlane, namespace: str) -> None:
    """With native gangs, none of three pods is bound where two fit, and all are when a third node comes."""
    selector = {"pool": namespace}
    for number in range(2):
        kwok.add_node(f"{namespace}-{number}", gpus=1, labels=selector)
    group = {"apiVersion": "scheduling.k8s.io/v1beta1", "kind": "PodGroup", "metadata": {"name": "gang"}}
    kwok.api.create(group | {"spec": {"schedulingPolicy": {"gang": {"minCount": 3}}}}, namespace)
    train = job("train", hosts=3, gpus=1)
    pod = train["spec"]["template"]["spec"]  # type: ignore[index]
    pod |= {"nodeSelector": selector, "schedulingGroup": {"podGroupName": "gang"}}
    kwok.api.create(train, namespace)
    groups = f"/apis/scheduling.k8s.io/v1beta1/namespaces/{namespace}/podgroups"
    kwok.api.wait(groups, lambda found: found[0].get("status", {}).get("conditions"))
    pods = kwok.api.items(f"/api/v1/namespaces/{namespace}/pods")
    assert [pod["spec"].get("nodeName") for pod in pods] == [None] * 3
    kwok.add_node(f"{namespace}-2", gpus=1, labels=selector)
    jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    kwok.api.wait(jobs, lambda found: found[0].get("status", {}).get("succeeded") == 3)
    for number in range(3):
        kwok.api.delete(f"/api/v1/nodes/{namespace}-{number}")
