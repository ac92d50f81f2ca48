"""Jobs that wait: for room, for a quota, for a gang, for somebody who holds them back. All by the real control plane."""

from typing import Any

from tests.launch.why.scenarios.scene import GPU, Scene, Step, also, asks, merged


def node_terms(key: str, *values: str) -> dict[str, Any]:
    """Required node affinity."""
    terms = [{"matchExpressions": [{"key": key, "operator": "In", "values": list(values)}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return also(affinity={"nodeAffinity": required})


def pod_terms(kind: str, app: str) -> dict[str, Any]:
    """Required pod affinity or anti-affinity, by host."""
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"}
    return also(affinity={kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})


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


def taint(key: str, value: str = "yes", effect: str = "NoSchedule") -> dict[str, str]:
    return {"key": key, "value": value, "effect": effect}


def all_nodes_tainted(scene: Scene) -> None:
    scene.pool(2, taints=[taint("dedicated", "research")])
    scene.job()
    scene.waiting()


def tolerates_another_value(scene: Scene) -> None:
    scene.pool(2, taints=[taint("dedicated", "research")])
    other = {"key": "dedicated", "operator": "Equal", "value": "serving", "effect": "NoSchedule"}
    scene.job(pod=also(tolerations=[other]))
    scene.waiting()


def large_nodes_tainted_small_ones_open(scene: Scene) -> None:
    scene.pool(2, taints=[taint("nvidia.com/gpu", "present")])
    scene.pool(2, gpus=0)
    scene.job()
    scene.waiting()


def selector_of_a_type_nobody_has(scene: Scene) -> None:
    scene.pool(2, labels={"gpu-type": "h100"})
    scene.job(pod=also(nodeSelector={"gpu-type": "h200"}))
    scene.waiting()


def selector_with_a_misspelt_key(scene: Scene) -> None:
    scene.pool(2, labels={"gpu-type": "h100"})
    scene.job(pod=also(nodeSelector={"gpu-typ": "h100"}))
    scene.waiting()


def labels_that_no_node_has_together(scene: Scene) -> None:
    scene.node(labels={"gpu-type": "h100", "zone": "a"})
    scene.node(labels={"gpu-type": "a100", "zone": "b"})
    scene.job(pod=also(nodeSelector={"gpu-type": "h100", "zone": "b"}))
    scene.waiting()


def affinity_to_a_zone_without_nodes(scene: Scene) -> None:
    scene.pool(2, labels={"zone": "a"})
    scene.job(pod=node_terms("zone", "b", "c"))
    scene.waiting()


def away_from_its_own_kind(scene: Scene) -> None:
    scene.pool(2)
    scene.job(hosts=3, pod=merged(asks(gpu=1), pod_terms("podAntiAffinity", "train")))
    scene.running(2)
    scene.waiting()


def next_to_a_pod_that_is_not_there(scene: Scene) -> None:
    scene.pool(2)
    scene.job(pod=pod_terms("podAffinity", "feature-cache"))
    scene.waiting()


def spread_over_zones(scene: Scene) -> None:
    scene.node(labels={"zone": "a"})
    scene.node(gpus=1, labels={"zone": "b"})
    selector = {"matchLabels": {"app": "train"}}
    rule = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": selector,
    }
    scene.job(hosts=4, pod=merged(asks(gpu=1), also(topologySpreadConstraints=[rule])))
    scene.running(3)
    scene.waiting()


def cordon(scene: Scene, name: str) -> None:
    scene.api.patch(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": True}})
    path = "/api/v1/nodes"
    scene.api.wait(path, lambda nodes: nodes[0]["spec"].get("taints"), fieldSelector=f"metadata.name={name}")


def all_nodes_cordoned(scene: Scene) -> None:
    for name in scene.pool(2):
        cordon(scene, name)
    scene.job()
    scene.waiting()


def the_free_node_is_cordoned(scene: Scene) -> None:
    first = scene.node()
    cordon(scene, first)
    scene.node()
    fill(scene, 1, gpu=8)
    scene.job()
    scene.waiting()


def nodes_not_ready(scene: Scene) -> None:
    # From the beginning: a node of which nothing is known has no taint for a moment, and gets the pod.
    ready = {"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "runtime is down"}
    scene.pool(2, kwok=False, conditions=[ready])
    scene.job()
    scene.waiting()


def suspended_by_hand(scene: Scene) -> None:
    scene.pool(1)
    scene.job(suspend=True)
    scene.condition("Suspended")


def suspended_for_kueue(scene: Scene) -> None:
    scene.pool(1)
    scene.job(suspend=True, labels={"kueue.x-k8s.io/queue-name": "research"})
    scene.condition("Suspended")


def gated(scene: Scene) -> None:
    scene.pool(1)
    scene.job(pod=also(schedulingGates=[{"name": "example.com/data-staged"}]))
    scene.pods(lambda pods: pods and pods[0].get("status", {}).get("conditions"))


def nobody_schedules(scene: Scene) -> None:
    scene.pool(1)
    scene.job(pod=also(schedulerName="batch-scheduler"))
    scene.pods(bool)


def claim(scene: Scene, name: str, storage_class: str | None) -> None:
    spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    spec |= {} if storage_class is None else {"storageClassName": storage_class}
    scene.make("v1", "PersistentVolumeClaim", name, spec=spec)


def mounts_claim(name: str) -> dict[str, Any]:
    return also(volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": name}}])


def claim_that_does_not_exist(scene: Scene) -> None:
    scene.pool(1)
    scene.job(pod=mounts_claim("dataset"))
    scene.waiting()


def claim_without_a_class(scene: Scene) -> None:
    scene.pool(1)
    claim(scene, "dataset", "")
    scene.job(pod=mounts_claim("dataset"))
    scene.waiting()


def claim_of_a_class_that_does_not_exist(scene: Scene) -> None:
    scene.pool(1)
    claim(scene, "dataset", "fast-ssd")
    scene.job(pod=mounts_claim("dataset"))
    scene.waiting()


def claim_for_which_there_is_no_volume(scene: Scene) -> None:
    name = f"local-{scene.namespace}"
    how = {"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}
    scene.make("storage.k8s.io/v1", "StorageClass", name, **how)
    scene.pool(1)
    claim(scene, "dataset", name)
    scene.job(pod=mounts_claim("dataset"))
    scene.waiting()


def no_such_service_account(scene: Scene) -> None:
    scene.pool(1)
    scene.job(pod=also(serviceAccountName="trainer"))
    scene.event("FailedCreate")


def no_such_priority_class(scene: Scene) -> None:
    scene.pool(1)
    scene.job(pod=also(priorityClassName="urgent"))
    scene.event("FailedCreate", "WorkloadCreated")


def pod_security(scene: Scene) -> None:
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    scene.api.patch(f"/api/v1/namespaces/{scene.namespace}", labels)
    scene.pool(1)
    scene.job()
    scene.event("FailedCreate")


def limit_range(scene: Scene) -> None:
    scene.make("v1", "LimitRange", "small", spec={"limits": [{"type": "Container", "max": {"cpu": "4"}}]})
    scene.pool(1)
    scene.job(pod=asks(cpu=8))
    scene.event("FailedCreate")


def here_only(scene: Scene) -> dict[str, Any]:
    return {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}}


RULES = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]


def webhook_out_of_order(scene: Scene) -> None:
    hook = {
        "name": "pods.policy.example.com",
        "clientConfig": {"url": "https://127.0.0.1:1/validate"},
        "rules": RULES,
        "namespaceSelector": here_only(scene),
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 1,
    }
    kind = "ValidatingWebhookConfiguration"
    scene.make("admissionregistration.k8s.io/v1", kind, scene.namespace, webhooks=[hook])
    scene.pool(1)
    scene.job()
    scene.event("FailedCreate")


def admission_policy(scene: Scene) -> None:
    version, name = "admissionregistration.k8s.io/v1", scene.namespace
    needs_owner = {
        "expression": "has(object.metadata.labels.owner)",
        "message": "every pod needs an owner label",
    }
    spec: dict[str, Any] = {"matchConstraints": {"resourceRules": RULES}, "validations": [needs_owner]}
    scene.make(version, "ValidatingAdmissionPolicy", name, spec=spec)
    bound = {
        "policyName": name,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": here_only(scene)},
    }
    scene.make(version, "ValidatingAdmissionPolicyBinding", name, spec=bound)
    scene.pool(1)
    probe = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": scene.pod_spec()}
    refused_at_last(scene, probe)
    scene.job()
    scene.event("FailedCreate")


def refused_at_last(scene: Scene, pod: dict[str, Any]) -> None:
    """A policy is in force some moments after it was made, and nothing tells when: ask until it is."""
    import time

    from tests.services.kube_api import ApiError

    for _ in range(600):
        try:
            scene.api.create(pod, scene.namespace, dry_run=True)
        except ApiError:
            return
        time.sleep(0.1)
    raise TimeoutError("the policy refused nothing within a minute")


def no_such_runtime_class(scene: Scene) -> None:
    scene.pool(1)
    scene.job(pod=also(runtimeClassName="nvidia-cdi"))
    scene.event("FailedCreate")


def left_to_another_controller(scene: Scene) -> None:
    scene.pool(1)
    scene.job(managedBy="example.com/dispatcher")


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
    all_nodes_tainted: "taint",
    tolerates_another_value: "taint",
    large_nodes_tainted_small_ones_open: "taint",
    selector_of_a_type_nobody_has: "node-selector",
    selector_with_a_misspelt_key: "node-selector",
    labels_that_no_node_has_together: "node-selector",
    affinity_to_a_zone_without_nodes: "affinity",
    away_from_its_own_kind: "affinity",
    next_to_a_pod_that_is_not_there: "affinity",
    spread_over_zones: "affinity",
    all_nodes_cordoned: "cordoned",
    the_free_node_is_cordoned: "cordoned",
    nodes_not_ready: "node-lost",
    suspended_by_hand: "suspended",
    suspended_for_kueue: "queue-waiting",
    gated: "scheduling-gate",
    nobody_schedules: "scheduler-missing",
    claim_that_does_not_exist: "volume-unbound",
    claim_without_a_class: "volume-unbound",
    claim_of_a_class_that_does_not_exist: "volume-unbound",
    claim_for_which_there_is_no_volume: "volume-unbound",
    no_such_service_account: "service-account",
    no_such_priority_class: "priority-missing",
    pod_security: "admission-denied",
    limit_range: "admission-denied",
    webhook_out_of_order: "admission-denied",
    admission_policy: "admission-denied",
    no_such_runtime_class: "admission-denied",
    left_to_another_controller: "unknown",
}
