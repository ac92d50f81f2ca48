"""Pods that have a node and do not start: images, volumes, and what they are configured with."""

import re
from collections.abc import Iterable

from tradewind.launch.why.cause import Cause, Code, Weight, fact
from tradewind.launch.why.kinds import Claim, Event, StorageClass
from tradewind.launch.why.messages import said_by_scheduler, scheduler_evidence
from tradewind.launch.why.pods import ContainerStatus, Pod
from tradewind.launch.why.view import View, from_event

_PULL = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed")  # fmt: skip
CONFIG = re.compile(
    r'(configmap|secret)s? "([^"]+)" (?:is forbidden|not found)|couldn\'t find key (\S+)', re.IGNORECASE
)


_PULLING = re.compile(r"pull|ErrImage|InvalidImageName|invalid reference|ImageInspect", re.IGNORECASE)


def statuses(pod: Pod) -> Iterable[ContainerStatus]:
    """Init containers first, as they run."""
    return (*pod.status.init_container_statuses, *pod.status.container_statuses)


def image_pull(view: View) -> Cause | None:
    """An image cannot be had."""
    for pod in view.alive:
        for status in statuses(pod):
            waiting = status.state.waiting
            if waiting and waiting.reason in _PULL:
                said = _pull_said(view, pod) or waiting.message
                return _image_cause(view, pod, status, waiting.reason, said)
    return _image_said(view)


def _image_said(view: View) -> Cause | None:
    """The same from events alone, for a dump whose pods do not say what they wait for."""
    for pod in view.starting:
        said = [
            e for e in view.said("Failed", "BackOff", "InspectFailed", pod=pod) if _PULLING.search(e.text)
        ]
        if said and not any(statuses(pod)):
            return Cause(
                code=Code.IMAGE_PULL,
                text=f"An image of {pod.metadata.name} cannot be pulled: {said[0].text}",
                remedy=_pull_remedy(said[0].text),
                weight=Weight.BLOCKS,
                evidence=(from_event(said[0]), from_event(said[-1])),
            )
    return None


def _pull_said(view: View, pod: Pod) -> str:
    """The registry's own answer: the container's state soon says no more than that it waits to try again."""
    said = [event.text for event in view.said("Failed", pod=pod) if "pull" in event.text.lower()]
    return next((text for text in said if "Error: " not in text), "")


def _image_cause(view: View, pod: Pod, status: ContainerStatus, reason: str, said: str) -> Cause:
    image = _image_of(pod, status)
    return Cause(
        code=Code.IMAGE_PULL,
        text=f"Image {image} cannot be pulled ({reason}): {said}",
        remedy=_pull_remedy(f"{reason} {said}"),
        weight=Weight.BLOCKS,
        evidence=(
            fact(pod.ref, f"status.containerStatuses[{status.name}].state.waiting.reason", reason),
            fact(pod.ref, f"spec.containers[{status.name}].image", image),
            *(from_event(event) for event in view.said("Failed", "BackOff", pod=pod)[-1:]),
        ),
    )


def _image_of(pod: Pod, status: ContainerStatus) -> str:
    named = {each.name: each.image for each in (*pod.spec.init_containers, *pod.spec.containers)}
    return named.get(status.name) or status.image


def _pull_remedy(said: str) -> str:
    if re.search(r"unauthori[sz]ed|denied|authentication|forbidden|401|403", said, re.IGNORECASE):
        return (
            "The registry wants credentials: name an image pull secret in the pods or their service account."
        )
    if re.search(r"not found|manifest unknown|404", said, re.IGNORECASE):
        return "There is no such image or tag: push it, or correct its name."
    if "InvalidImageName" in said:
        return "The name is no image reference: correct it."
    if re.search(r"timeout|no such host|connection refused|i/o|TLS|toomanyrequests", said, re.IGNORECASE):
        return "The registry cannot be reached from the node or limits its rate: try a mirror, or later."
    return "Pull it by hand on the node (crictl pull IMAGE) to see the registry's answer."


def config_missing(view: View) -> Cause | None:
    """A ConfigMap, a Secret or a key of one that the pods need is not there."""
    for pod in view.starting:
        for status in statuses(pod):
            waiting = status.state.waiting
            if waiting and waiting.reason == "CreateContainerConfigError" and CONFIG.search(waiting.message):
                return _config_cause(view, pod, waiting.message)
    for pod in view.starting:
        absent = _absent(view, pod)
        events = [e for e in view.said("FailedMount", "Failed", pod=pod) if CONFIG.search(e.text)]
        if absent or events:
            return _config_cause(view, pod, events[-1].text if events else f"{absent} not found")
    return None


def _config_cause(view: View, pod: Pod, said: str) -> Cause:
    found = CONFIG.search(said)
    what = _absent(view, pod) or (f"{found[1]} {found[2]}" if found and found[1] else said)
    events = [event for event in view.said("FailedMount", "Failed", pod=pod) if CONFIG.search(event.text)]
    return Cause(
        code=Code.CONFIG_MISSING,
        text=f"The pods need {what}, which is not in namespace {view.namespace}: {said}",
        remedy=f"Make it (kubectl -n {view.namespace} create ...), or correct its name or key in the pod template.",
        weight=Weight.BLOCKS + 0.01,
        evidence=(
            fact(pod.ref, "spec", f"needs {what}"),
            *(from_event(event) for event in events[-1:]),
        ),
    )


def _absent(view: View, pod: Pod) -> str:
    """The first ConfigMap or Secret that a pod cannot do without and the namespace lacks."""
    for kind, name in needed(pod):
        if view.world.lacks(kind, name, view.namespace):
            return f"{kind.lower()} {name}"
    return ""


def needed(pod: Pod) -> Iterable[tuple[str, str]]:
    """(kind, name) of every ConfigMap and Secret that is not optional."""
    for volume in pod.spec.volumes:
        if volume.secret and not volume.secret.optional:
            yield "Secret", volume.secret.secret_name
        maps = [volume.config_map, *(source.config_map for source in volume.projected.sources)]
        yield from (("ConfigMap", each.name) for each in maps if each and not each.optional)
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        places = [(each.config_map_ref, each.secret_ref) for each in container.env_from]
        places += [
            (each.value_from.config_map_key_ref, each.value_from.secret_key_ref) for each in container.env
        ]
        for config, secret in places:
            yield from (
                (kind, at.name)
                for kind, at in (("ConfigMap", config), ("Secret", secret))
                if at and not at.optional
            )


def mount_failed(view: View) -> Cause | None:
    """A volume does not come to the node or is not mounted there, whatever else seems to be going on."""
    for pod in view.starting:
        events = view.said("FailedMount", "FailedAttachVolume", "FailedMapVolume", pod=pod)
        telling = [event for event in events if not CONFIG.search(event.text)]
        if telling:
            return _mount_cause(pod, telling)
    return None


def _mount_cause(pod: Pod, events: list[Event]) -> Cause:
    """The first message names the reason; the later ones only that the time is over."""
    telling = [event for event in events if "timed out waiting" not in event.text] or events
    return Cause(
        code=Code.MOUNT_FAILED,
        text=f"A volume of {pod.metadata.name} cannot be mounted on {pod.spec.node_name}: {telling[-1].text}",
        remedy="See that the file server or disk is there and lets this node in; a disk that hangs on another node "
        "is released when that node's pod is gone (kubectl get volumeattachments).",
        weight=Weight.BLOCKS,
        evidence=tuple(from_event(event) for event in telling[-2:]),
    )


def sandbox_failed(view: View) -> Cause | None:
    """The node cannot set up the pod's network or container."""
    for pod in view.starting:
        events = view.said("FailedCreatePodSandBox", pod=pod)
        if events:
            return Cause(
                code=Code.STARTING,
                text=f"Node {pod.spec.node_name} cannot set up the pod: {events[-1].text}",
                remedy="The node's network plugin or runtime is at fault: cordon the node and let its owners look.",
                weight=Weight.WAITS,
                evidence=(from_event(events[-1]),),
            )
    return None


_UNSEEN = "is not among the objects of the dump"


def volume_unbound(view: View) -> Cause | None:
    """A claim that the pods mount is missing, or no volume was found for it."""
    for pod in view.unplaced:
        for volume in pod.spec.volumes:
            name = volume.persistent_volume_claim.claim_name if volume.persistent_volume_claim else ""
            if name and (found := _claim_trouble(view, name)):
                return _claim_cause(view, pod, name, found)
    return None


def _claim_trouble(view: View, name: str) -> str:
    """What is wrong with a claim; nothing for one that only waits for its pod, as it should."""
    claims = view.world.all(Claim, view.namespace)
    claim = next((claim for claim in claims if claim.metadata.name == name), None)
    said = said_by_scheduler(view)
    if claim is None:
        return "does not exist" if claims or f'"{name}" not found' in said else _UNSEEN
    if claim.status.phase == "Bound":
        return ""
    if claim.status.phase == "Lost":
        return "has lost its volume"
    classes = {each.metadata.name: each for each in view.world.all(StorageClass)}
    chosen = classes.get(claim.spec.storage_class_name)
    if chosen and chosen.volume_binding_mode == "WaitForFirstConsumer" and "olume" not in said:
        return ""
    if classes and claim.spec.storage_class_name and chosen is None:
        return f"names the storage class {claim.spec.storage_class_name}, which does not exist"
    return "is not bound to a volume"


def _claim_cause(view: View, pod: Pod, name: str, trouble: str) -> Cause:
    claims = view.world.all(Claim, view.namespace)
    claim = next((claim for claim in claims if claim.metadata.name == name), None)
    events = _claim_events(view, name)
    said = f" ({events[-1].text})" if events else ""
    return Cause(
        code=Code.VOLUME_UNBOUND,
        text=f"PersistentVolumeClaim {name}, which the pods mount, {trouble}{said}.",
        remedy="Make the claim, or name a storage class that provisions (kubectl get storageclasses), or make a volume.",
        weight=Weight.SAID if trouble == _UNSEEN else Weight.BLOCKS,
        evidence=(
            fact(pod.ref, "spec.volumes[].persistentVolumeClaim", name),
            *([fact(claim.ref, "status.phase", claim.status.phase)] if claim else []),
            *(from_event(event) for event in events[-1:]),
            *scheduler_evidence(view),
        ),
    )


def _claim_events(view: View, name: str) -> list[Event]:
    found = [e for e in view.world.all(Event, view.namespace) if e.about.kind == "PersistentVolumeClaim"]
    return sorted((event for event in found if event.about.name == name), key=lambda event: event.time)
