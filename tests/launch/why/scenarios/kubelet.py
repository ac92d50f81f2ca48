"""What only a kubelet can say: pods are made and placed by the real control plane, their status is then patched
and their events written as a kubelet writes them.
"""

from tests.launch.why.scenarios.scene import Scene, Step, also, container, ended, now, waits

NO_SUCH = 'Failed to pull image "registry.example/train:1": rpc error: code = NotFound desc = failed to pull and unpack image: failed to resolve reference "registry.example/train:1": registry.example/train:1: not found'
NO_ACCESS = 'Failed to pull image "registry.example/train:1": failed to authorize: failed to fetch anonymous token: unexpected status: 401 Unauthorized'
MOUNT = 'MountVolume.SetUp failed for volume "data" : mount failed: exit status 32. mount.nfs: Connection timed out'
ATTACH = 'Multi-Attach error for volume "pvc-1" Volume is already exclusively attached to one node and can\'t be attached to another'
TRACEBACK = """Traceback (most recent call last):
  File "/app/train.py", line 71, in <module>
    main()
KeyError: 'user_id'
"""
PEER = "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.1.2.3]:4312"
GLOO = "RuntimeError: Gloo connectFullMesh failed with [../gloo/transport/tcp/pair.cc:144] no error"
NCCL = "torch.distributed.DistBackendError: NCCL error: unhandled system error, ncclSystemError: socketStartConnect: Connect to 10.1.2.3<45321> failed : No route to host"
STORE = "torch.distributed.DistNetworkError: The client socket has timed out after 60000ms while trying to connect to (train-0.train, 29500)."


def no_such_image(scene: Scene) -> None:
    (pod,) = scene.held()
    scene.tell(pod, "Pulling", 'Pulling image "registry.example/train:1"')
    scene.tell(pod, "Failed", NO_SUCH)
    scene.say(pod, waits("ErrImagePull", NO_SUCH))


def registry_wants_credentials(scene: Scene) -> None:
    pods = scene.held(2)
    for pod in pods:
        scene.tell(pod, "Failed", NO_ACCESS)
        scene.tell(pod, "BackOff", 'Back-off pulling image "registry.example/train:1"')
        scene.say(pod, waits("ImagePullBackOff", 'Back-off pulling image "registry.example/train:1"'))


def image_name_that_is_none(scene: Scene) -> None:
    (pod,) = scene.held()
    scene.tell(pod, "InspectFailed", 'Failed to apply default image tag "Train:1": invalid reference format')
    scene.say(pod, waits("InvalidImageName", 'Failed to apply default image tag "Train:1"'))


def one_host_of_three_without_its_image(scene: Scene) -> None:
    pods = scene.held(3)
    for pod in pods[:2]:
        scene.say(
            pod, {"phase": "Running", "containerStatuses": [container({"running": {"startedAt": now()}})]}
        )
    scene.tell(pods[2], "Failed", NO_SUCH)
    scene.say(pods[2], waits("ImagePullBackOff", "Back-off pulling image"))


def file_server_that_does_not_answer(scene: Scene) -> None:
    (pod,) = scene.held()
    scene.tell(pod, "FailedMount", MOUNT)
    scene.say(pod, waits("ContainerCreating"))


def mount_failed_behind_a_pull(scene: Scene) -> None:
    (pod,) = scene.held()
    scene.tell(pod, "FailedMount", MOUNT)
    scene.tell(
        pod,
        "FailedMount",
        "Unable to attach or mount volumes: unmounted volumes=[data]: timed out waiting for the condition",
    )
    scene.tell(pod, "Pulling", 'Pulling image "registry.example/sidecar:1"')
    scene.say(pod, waits("ContainerCreating"))


def disk_still_on_another_node(scene: Scene) -> None:
    (pod,) = scene.held()
    scene.tell(pod, "FailedAttachVolume", ATTACH)
    scene.say(pod, waits("ContainerCreating"))


def config_map_volume_missing(scene: Scene) -> None:
    (pod,) = scene.held(pod=also(volumes=[{"name": "cfg", "configMap": {"name": "train-config"}}]))
    scene.tell(
        pod, "FailedMount", 'MountVolume.SetUp failed for volume "cfg" : configmap "train-config" not found'
    )
    scene.say(pod, waits("ContainerCreating"))


def secret_in_the_environment_missing(scene: Scene) -> None:
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}]
    (pod,) = scene.held(pod=also(containers=[{"name": "main", "image": "train:1", "env": env}]))
    scene.tell(pod, "Failed", 'Error: secret "hub" not found')
    scene.say(pod, waits("CreateContainerConfigError", 'secret "hub" not found'))


def config_map_missing_and_nobody_says_so(scene: Scene) -> None:
    (pod,) = scene.held(pod=also(volumes=[{"name": "cfg", "configMap": {"name": "train-config"}}]))
    scene.say(pod, waits("ContainerCreating"))


def key_of_a_config_map_missing(scene: Scene) -> None:
    scene.make("v1", "ConfigMap", "train-config", data={"lr": "0.1"})
    env = [{"name": "STEPS", "valueFrom": {"configMapKeyRef": {"name": "train-config", "key": "steps"}}}]
    (pod,) = scene.held(pod=also(containers=[{"name": "main", "image": "train:1", "env": env}]))
    message = f"couldn't find key steps in ConfigMap {scene.namespace}/train-config"
    scene.tell(pod, "Failed", f"Error: {message}")
    scene.say(pod, waits("CreateContainerConfigError", message))


def restarts_in_place(scene: Scene) -> None:
    (pod,) = scene.held(pod=also(restartPolicy="OnFailure"))
    last = {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": now()}}
    back_off = "back-off 2m40s restarting failed container=main"
    scene.tell(pod, "BackOff", "Back-off restarting failed container main in pod")
    scene.say(pod, waits("CrashLoopBackOff", back_off, 5, last) | {"phase": "Running"})


def between_two_crashes(scene: Scene) -> None:
    (pod,) = scene.held(pod=also(restartPolicy="OnFailure"))
    last = {"terminated": {"exitCode": 139, "reason": "Error", "finishedAt": now()}}
    scene.tell(pod, "BackOff", "Back-off restarting failed container main in pod")
    running = container({"running": {"startedAt": now()}}, 6, last)
    scene.say(pod, {"phase": "Running", "containerStatuses": [running]})


def memory_loop(scene: Scene) -> None:
    (pod,) = scene.held(pod=also(restartPolicy="OnFailure"))
    last = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": now()}}
    scene.tell(pod, "BackOff", "Back-off restarting failed container main in pod")
    scene.say(pod, waits("CrashLoopBackOff", "back-off 5m0s restarting", 9, last) | {"phase": "Running"})


def killed_for_memory(scene: Scene) -> None:
    (pod,) = scene.held(backoffLimit=0)
    scene.say(pod, ended(137, reason="OOMKilled"))
    scene.condition("Failed")


def one_rank_out_of_memory_first(scene: Scene) -> None:
    pods = scene.held(3, backoffLimit=0)
    scene.say(pods[1], ended(137, reason="OOMKilled", at=now(-5)))
    for pod in (pods[0], pods[2]):
        scene.say(pod, ended(1, message=PEER))
    scene.condition("Failed")


def device_memory(scene: Scene) -> None:
    (pod,) = scene.held(backoffLimit=0)
    said = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB"
    scene.say(pod, ended(1, message=said))
    scene.condition("Failed")


def exception_with_its_traceback(scene: Scene) -> None:
    (pod,) = scene.held(backoffLimit=0)
    scene.say(pod, ended(1, message=TRACEBACK))
    scene.condition("Failed")


def first_of_four_ranks(scene: Scene) -> None:
    pods = scene.held(4, backoffLimit=0)
    scene.say(pods[3], ended(1, message=TRACEBACK, at=now(-3)))
    for pod in pods[:3]:
        scene.say(pod, ended(1, message=PEER, at=now(2)))
    scene.condition("Failed")


def command_that_cannot_be_run(scene: Scene) -> None:
    (pod,) = scene.held(pod=also(restartPolicy="OnFailure"))
    message = 'failed to create containerd task: exec: "pyhton": executable file not found in $PATH'
    scene.tell(pod, "Failed", f"Error: {message}")
    scene.say(pod, waits("RunContainerError", message, 1))


def mesh_that_does_not_form(scene: Scene) -> None:
    pods = scene.held(2, backoffLimit=0)
    for pod in pods:
        scene.say(pod, ended(1, message=GLOO))
    scene.condition("Failed")


def route_that_is_missing(scene: Scene) -> None:
    pods = scene.held(2, backoffLimit=0)
    for pod in pods:
        scene.say(pod, ended(1, message=NCCL))
    scene.condition("Failed")


def coordinator_out_of_reach_in_a_loop(scene: Scene) -> None:
    pods = scene.held(2, pod=also(restartPolicy="OnFailure"))
    last = {"terminated": {"exitCode": 1, "reason": "Error", "message": STORE, "finishedAt": now()}}
    for pod in pods:
        scene.tell(pod, "BackOff", "Back-off restarting failed container main in pod")
        scene.say(pod, waits("CrashLoopBackOff", "back-off 40s restarting", 3, last) | {"phase": "Running"})


def evicted_for_disk(scene: Scene) -> None:
    (pod,) = scene.held(backoffLimit=0)
    message = "The node was low on resource: ephemeral-storage. Container main was using 212Gi, request is 0."
    scene.tell(pod, "Evicted", message)
    scene.say(pod, {"phase": "Failed", "reason": "Evicted", "message": message})
    scene.condition("Failed")


def node_shut_down(scene: Scene) -> None:
    (pod,) = scene.held(backoffLimit=0)
    target = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
    target |= {
        "message": "Pod was terminated in response to imminent node shutdown.",
        "lastTransitionTime": now(),
    }
    scene.say(pod, {"conditions": [target]} | ended(143, at=now(5)))
    scene.condition("Failed")


def large_image_on_its_way(scene: Scene) -> None:
    (pod,) = scene.held()
    scene.tell(pod, "Pulling", 'Pulling image "registry.example/train:1"')
    scene.say(pod, waits("ContainerCreating"))


SCENARIOS: dict[Step, str] = {
    no_such_image: "image-pull",
    registry_wants_credentials: "image-pull",
    image_name_that_is_none: "image-pull",
    one_host_of_three_without_its_image: "image-pull",
    file_server_that_does_not_answer: "mount-failed",
    mount_failed_behind_a_pull: "mount-failed",
    disk_still_on_another_node: "mount-failed",
    config_map_volume_missing: "config-missing",
    secret_in_the_environment_missing: "config-missing",
    config_map_missing_and_nobody_says_so: "config-missing",
    key_of_a_config_map_missing: "config-missing",
    restarts_in_place: "crash-loop",
    between_two_crashes: "crash-loop",
    memory_loop: "out-of-memory",
    killed_for_memory: "out-of-memory",
    one_rank_out_of_memory_first: "out-of-memory",
    device_memory: "out-of-memory",
    exception_with_its_traceback: "user-error",
    first_of_four_ranks: "user-error",
    command_that_cannot_be_run: "user-error",
    mesh_that_does_not_form: "rendezvous",
    route_that_is_missing: "rendezvous",
    coordinator_out_of_reach_in_a_loop: "rendezvous",
    evicted_for_disk: "evicted",
    node_shut_down: "evicted",
    large_image_on_its_way: "starting",
}
