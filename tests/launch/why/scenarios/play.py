"""Plays every scenario on one control plane, many at a time, and gives the dumps with their labels."""

import concurrent.futures
import sys
import time
from typing import NamedTuple

import msgspec

from tests.launch.why.scenarios import disturbed, held, kubelet, nodes, recorded, room
from tests.launch.why.scenarios.scene import Scene, Step
from tests.services.kubernetes import ControlPlane

AT_ONCE = 32
BY_THE_CLUSTER = room.SCENARIOS | nodes.SCENARIOS | held.SCENARIOS | disturbed.SCENARIOS


class Played(NamedTuple):
    """One scenario's dump; `source` says who wrote it: `cluster`, `kubelet` (patched), or `recorded`."""

    name: str
    source: str
    label: str
    dump: bytes


def play_all(plane: ControlPlane) -> list[Played]:
    """Every scenario; raises the first failure to produce one, with its name."""
    steps = [(step, "cluster", label) for step, label in BY_THE_CLUSTER.items()]
    steps += [(step, "kubelet", label) for step, label in kubelet.SCENARIOS.items()]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        played = list(pool.map(lambda each: _play(plane, *each), steps))
    return played + play_recorded()


def play_recorded() -> list[Played]:
    """The scenarios that need no cluster."""
    return [
        Played(make.__name__, "recorded", label, msgspec.json.encode(make()))
        for make, label in recorded.SCENARIOS.items()
    ]


def _play(plane: ControlPlane, step: Step, source: str, label: str) -> Played:
    started = time.monotonic()
    scene = Scene(plane)
    try:
        step(scene)
        found = msgspec.json.encode(scene.dump())
    except Exception as error:  # Raised again for the test, with the name of the scenario.
        raise RuntimeError(f"scenario {step.__name__} in {scene.namespace}: {error}") from error
    finally:
        scene.close()
    print(f"{step.__name__:<44} {time.monotonic() - started:6.1f} s", file=sys.stderr)
    return Played(step.__name__, source, label, found)
