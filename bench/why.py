"""How often `tradewind why` names the cause that was injected, beside what the last event alone would suggest.

Every scenario of `tests/launch/why/scenarios` is played on a real control plane (etcd, API server, scheduler,
controller manager; kwok for the nodes), its objects are dumped as kubectl prints them, and the first cause is
compared with the label: what was injected, written down before the explanation was. What only a kubelet can
say is patched in as a kubelet writes it, and Kueue's objects are written by hand, as its controller does not
run here. The baseline is what many do by hand: the newest event about the Job or one of its pods, with the
code that its reason suggests most often, or better, the newest warning; it is asked about the scenarios of the
control plane only, as those written by hand have few events. The smoke form plays only the scenarios written by hand.
"""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.harness import Figure, Options, main, say
from tests.launch.why.scenarios.play import Played, play_all, play_recorded
from tests.services.kubernetes import COMPONENTS, binary, control_plane
from tests.services.kubernetes import Options as PlaneOptions
from tradewind.launch.why import decode_dump, explain
from tradewind.launch.why.view import View, find_job

NAME = "why"
NAIVE = {
    "FailedScheduling": "no-capacity",
    "FailedCreate": "quota-exceeded",
    "Failed": "image-pull",
    "InspectFailed": "image-pull",
    "BackOff": "crash-loop",
    "FailedMount": "mount-failed",
    "FailedAttachVolume": "mount-failed",
    "Preempted": "preempted",
    "Evicted": "evicted",
    "TaintManagerEviction": "evicted",
    "NodeNotReady": "node-lost",
    "BackoffLimitExceeded": "backoff-limit",
    "DeadlineExceeded": "deadline",
    "PodFailurePolicy": "user-error",
    "OOMKilling": "out-of-memory",
    "Suspended": "suspended",
    "Completed": "completed",
    "Pulling": "starting",
    "Scheduled": "running",
    "SuccessfulCreate": "running",
    "SuccessfulDelete": "preempted",
}
"""The code that a reason stands for most often."""


def measure(options: Options) -> Mapping[str, Figure]:
    """Play every scenario once and compare the first cause with what was injected."""
    played = play_recorded() if options.quick else play()
    ours = [first_cause(each) == each.label for each in played]
    for each, right in zip(played, ours, strict=True):
        if not right:
            say(f"wrong: {each.name} ({each.source}): injected {each.label}, named {first_cause(each)}")
    live = [each for each in played if each.source != "recorded"] or played
    on_cluster = sum(each.source != "recorded" for each in played)
    say(f"{on_cluster} of {len(played)} on the control plane, {by_source(played)}")
    return {
        "scenarios": count(len(played)),
        "scenarios_control_plane": count(on_cluster),
        "scenarios_patched_kubelet": count(sum(each.source == "kubelet" for each in played)),
        "top1": share(ours),
        "top1_last_event": share([last_event(each) == each.label for each in live]),
        "top1_last_warning": share([last_warning(each) == each.label for each in live]),
    }


def play() -> list[Played]:
    """All scenarios on a control plane of their own; raises when its binaries are missing."""
    absent = [name for name in (*COMPONENTS, "kwok") if binary(name) is None]
    if absent:
        raise SystemExit(f"why: {', '.join(absent)} neither in KUBEBUILDER_ASSETS nor on the PATH")
    with tempfile.TemporaryDirectory(prefix="why-") as folder:
        with control_plane(Path(folder), PlaneOptions(gangs=True)) as plane:
            return play_all(plane)


def first_cause(played: Played) -> str:
    return explain(decode_dump(played.dump, played.name), "job/train").causes[0].code


def last_event(played: Played) -> str:
    """What the newest event about the Job or its pods suggests; `running` where there is none."""
    world = decode_dump(played.dump, played.name)
    events = View(world, find_job(world, "job/train")).events
    return NAIVE.get(events[-1].reason, "unknown") if events else "running"


def last_warning(played: Played) -> str:
    """The same from the newest warning, where there is one."""
    world = decode_dump(played.dump, played.name)
    events = View(world, find_job(world, "job/train")).events
    warnings = [event for event in events if event.type == "Warning"]
    newest = (warnings or events)[-1:]
    return NAIVE.get(newest[0].reason, "unknown") if newest else "running"


def by_source(played: Sequence[Played]) -> str:
    right: dict[str, list[bool]] = {}
    for each in played:
        right.setdefault(each.source, []).append(first_cause(each) == each.label)
    return ", ".join(f"{source} {sum(found)}/{len(found)} right" for source, found in right.items())


def count(number: int) -> Figure:
    return Figure(float(number), "", float(number), float(number), 1)


def share(truths: Sequence[bool]) -> Figure:
    value = statistics.fmean(truths)
    return Figure(value, "share", float(min(truths)), float(max(truths)), len(truths))


if __name__ == "__main__":
    main(NAME, measure, packages=("msgspec",))
