"""Jobs that wait for room, for a quota, or for a gang to be whole. All by the real control plane."""

from typing import Any

from tests.launch.why.scenarios.scene import GPU, Scene, Step, also, asks, merged


def fill(scene: Scene, pods: int, **amounts: Any) -> None:
    """Another job that holds part of the nodes."""
    scene.job("other", hosts=pods, pod=asks(**amounts))
    scene.running(pods, "other")


def gang(scene: Scene, count: int, **spec: Any) -> dict[str, Any]:
    """A native gang; gives the change of the template that joins it."""
    policy = {"schedulingPolicy": {"gang": {"minCount": count}}} | spec
    scene.make("scheduling.k8s.io/v1beta1", "PodGroup", "gang", spec=policy)
    return also(schedulingGroup={"podGroupName": "gang"})


def quota(scene: Scene, **hard: str) -> None:
    """A quota that is in force when this returns."""
    names = {"gpu": f"requests.{GPU}", "cpu": "requests.cpu"}
    limits = {names.get(name, name): value for name, value in hard.items()}
    scene.make("v1", "ResourceQuota", "team", spec={"hard": limits})
    path = f"/api/v1/namespaces/{scene.namespace}/resourcequotas"
    scene.api.wait(path, lambda found: found[0].get("status", {}).get("hard"))


def all_gpus_taken(scene: Scene) -> None:
    scene.pool(2)
    fill(scene, 2, gpu=8)
    scene.job()
    scene.waiting()


def cpus_taken_though_gpus_are_free(scene: Scene) -> None:
    scene.pool(2)
    fill(scene, 2, cpu=60)
    scene.job(pod=asks(gpu=4, cpu=16))
    scene.waiting()


def half_of_the_hosts_fit(scene: Scene) -> None:
    scene.pool(2)
    scene.job(hosts=4)
    scene.running(2)
    scene.waiting(2)


def memory_taken(scene: Scene) -> None:
    scene.node(gpus=0)
    fill(scene, 1, memory="500Gi")
    scene.job(pod=asks(memory="64Gi"))
    scene.waiting()


def two_gpus_free_on_each_of_four_nodes(scene: Scene) -> None:
    scene.pool(4)
    fill(scene, 4, gpu=6)
    scene.job(pod=asks(gpu=4))
    scene.waiting()


def seven_free_where_eight_are_wanted(scene: Scene) -> None:
    scene.pool(3)
    fill(scene, 3, gpu=1, cpu=33)
    scene.job(hosts=2)
    scene.waiting(2)


def memory_in_pieces(scene: Scene) -> None:
    scene.pool(3, gpus=0)
    fill(scene, 3, memory="300Gi")
    scene.job(pod=asks(memory="400Gi"))
    scene.waiting()


def room_in_no_single_rack(scene: Scene) -> None:
    for rack in ("r1", "r2"):
        scene.pool(2, labels={"rack": rack})
    member = gang(scene, 3, schedulingConstraints={"topology": [{"key": "rack"}]})
    scene.job(hosts=3, pod=member)
    scene.waiting(1)


def more_gpus_than_any_node_has(scene: Scene) -> None:
    scene.pool(2)
    scene.job(pod=asks(gpu=16))
    scene.waiting()


def more_cpus_than_any_node_has(scene: Scene) -> None:
    scene.pool(2)
    scene.job(pod=asks(gpu=8, cpu=200))
    scene.waiting()


def gpus_where_there_are_none(scene: Scene) -> None:
    scene.pool(2, gpus=0)
    scene.job()
    scene.waiting()


def more_memory_than_any_node_has_while_busy(scene: Scene) -> None:
    scene.pool(2)
    fill(scene, 2, gpu=8)
    scene.job(pod=asks(gpu=1, memory="2Ti"))
    scene.waiting()


def more_than_the_quota_itself(scene: Scene) -> None:
    scene.pool(2)
    quota(scene, gpu="4")
    scene.job(pod=asks(gpu=8))
    scene.event("FailedCreate")


def quota_used_by_another_job(scene: Scene) -> None:
    scene.pool(3)
    quota(scene, gpu="16")
    fill(scene, 2, gpu=8)
    scene.job()
    scene.event("FailedCreate")


def quota_for_half_of_the_hosts(scene: Scene) -> None:
    scene.pool(4)
    quota(scene, gpu="16")
    scene.job(hosts=4)
    scene.running(2)
    scene.event("FailedCreate")


def quota_of_pods(scene: Scene) -> None:
    scene.pool(1, gpus=0)
    quota(scene, pods="2")
    scene.job(hosts=3, pod=asks(cpu=1))
    scene.running(2)
    scene.event("FailedCreate")


def quota_of_cpus(scene: Scene) -> None:
    scene.pool(1, gpus=0)
    quota(scene, cpu="10")
    fill(scene, 1, cpu=8)
    scene.job(pod=asks(cpu=4))
    scene.event("FailedCreate")


def gang_of_three_where_one_fits(scene: Scene) -> None:
    scene.pool(1)
    scene.job(hosts=3, pod=gang(scene, 3))
    scene.waiting(1)


def gang_waits_for_one_busy_node(scene: Scene) -> None:
    scene.pool(3)
    fill(scene, 1, gpu=8)
    scene.job(hosts=3, pod=gang(scene, 3))
    scene.waiting(1)


def gang_larger_than_its_job(scene: Scene) -> None:
    scene.pool(4)
    scene.job(hosts=2, pod=gang(scene, 4))
    scene.pods(lambda pods: len(pods) == 2)
    path = f"/apis/scheduling.k8s.io/v1beta1/namespaces/{scene.namespace}/podgroups"
    scene.api.wait(path, lambda found: found)


def gang_without_any_room(scene: Scene) -> None:
    scene.pool(2)
    fill(scene, 2, gpu=8)
    scene.job(hosts=2, pod=gang(scene, 2))
    scene.waiting(1)


def gang_of_pods_that_never_fit(scene: Scene) -> None:
    scene.pool(2)
    scene.job(hosts=2, pod=merged(asks(gpu=16), gang(scene, 2)))
    scene.waiting(1)


SCENARIOS: dict[Step, str] = {
    all_gpus_taken: "no-capacity",
    cpus_taken_though_gpus_are_free: "no-capacity",
    half_of_the_hosts_fit: "no-capacity",
    memory_taken: "no-capacity",
    gang_without_any_room: "no-capacity",
    two_gpus_free_on_each_of_four_nodes: "fragmentation",
    seven_free_where_eight_are_wanted: "fragmentation",
    memory_in_pieces: "fragmentation",
    room_in_no_single_rack: "fragmentation",
    more_gpus_than_any_node_has: "never-fits",
    more_cpus_than_any_node_has: "never-fits",
    gpus_where_there_are_none: "never-fits",
    more_memory_than_any_node_has_while_busy: "never-fits",
    more_than_the_quota_itself: "never-fits",
    gang_of_pods_that_never_fit: "never-fits",
    quota_used_by_another_job: "quota-exceeded",
    quota_for_half_of_the_hosts: "quota-exceeded",
    quota_of_pods: "quota-exceeded",
    quota_of_cpus: "quota-exceeded",
    gang_of_three_where_one_fits: "gang-incomplete",
    gang_waits_for_one_busy_node: "gang-incomplete",
    gang_larger_than_its_job: "gang-incomplete",
}
