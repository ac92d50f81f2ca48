"""Where workers run: a pure decision over what the machine has, read from a made-up /sys; and that they keep to it."""

import math
import os
import pathlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradewind.serve.gpus import Gpu
from tradewind.serve.placement import Machine, Node, Place, here, numbers_of, places, read, text_of


def node(number: int, first: int, num_cores: int, threads: int = 1, apart: int = 0) -> Node:
    """Cores from CPU `first` on, the second threads of which are numbered `apart` later."""
    return Node(number, tuple(tuple(first + i + apart * t for t in range(threads)) for i in range(num_cores)))


SMALL = Machine((node(0, 0, 2),))
TWO = Machine((node(0, 0, 8, 2, 16), node(1, 8, 8, 2, 16)))
"""16 cores of two threads: 0-7 and 16-23 on node 0, the others on node 1."""
ALL_OF_0, ALL_OF_1 = (*range(1, 8), *range(17, 24)), (*range(8, 16), *range(24, 32))
"""What workers have of them: the front process keeps core 0, which is CPUs 0 and 16."""


@pytest.mark.parametrize(
    ("cpus", "workers", "threads"), [(2, 1, 1), (2, 2, 1), (1, 3, 1), (8, 1, 7), (8, 3, 2)]
)
def test_on_one_node_workers_share_all_cpus_but_one(cpus, workers, threads):
    """And keep to none: measured, that made no difference."""
    found = places(Machine((node(0, 0, cpus),)), workers, spares=1)
    assert found == (Place(threads),) * (workers + 1)


def test_workers_keep_to_nodes_where_each_node_has_some():
    """In turn, with as many threads each; a whole core, both of its threads, stays with the front process."""
    assert places(TWO, 2) == (Place(14, ALL_OF_1), Place(14, ALL_OF_0))
    assert places(TWO, 4) == (Place(7, ALL_OF_1), Place(7, ALL_OF_0)) * 2
    assert [p.threads for p in places(TWO, 3)] == [8, 8, 8]


def test_one_worker_has_all_nodes():
    """None of the machine is left over."""
    assert places(TWO, 1) == (Place(31),)


def test_a_node_that_is_too_small_for_a_worker_pins_nobody():
    """Two CPUs of the second node, as a control group may leave them."""
    assert places(Machine((node(0, 0, 12), node(1, 16, 1))), 2) == (Place(6), Place(6))


def test_a_node_of_one_core_is_shared_with_the_front():
    """There is nothing to keep free."""
    assert places(Machine((node(0, 0, 1), node(1, 1, 1))), 2) == (Place(1, (0,)), Place(1, (1,)))


def test_spares_have_the_places_of_the_first_workers_again():
    """As only so many run at a time as there are workers, threads are shared among those."""
    found = places(TWO, 2, spares=3)
    assert found == (*found[:2], *found[:2], found[0])
    assert found[:2] == places(TWO, 2)


@pytest.mark.parametrize(("quota", "threads"), [(4.0, 3), (2.5, 1), (0.5, 1), (100.0, 15)])
def test_a_control_group_s_limit_counts(quota, threads):
    """More threads than that are stopped by the kernel for the rest of each period."""
    assert places(Machine((node(0, 0, 16),), quota), 1) == (Place(threads),)


GPUS = tuple(Gpu(i, "H200", f"0000:{i:02x}:00.0") for i in range(4))


def test_workers_take_gpus_in_turn_and_the_node_next_to_theirs():
    """One worker is enough for that: the work of a node left over is done by nobody anyway."""
    machine = TWO._replace(gpus=GPUS, near={0: 0, 1: 0, 2: 1, 3: 1})
    assert places(machine, 1) == (Place(14, ALL_OF_0, "cuda:0"),)
    found = places(machine, 6, spares=1)
    assert [p.device for p in found] == ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0", "cuda:1", "cuda:0"]
    assert [p.cpus == ALL_OF_0 for p in found] == [True, True, False, False, True, True, True]
    assert {p.threads for p in found} == {14 // 4}


def test_a_gpu_whose_node_is_not_known_pins_nobody():
    """Virtual machines say -1, or nothing; or the node's CPUs are another container's."""
    machine = TWO._replace(gpus=GPUS[:2], near={0: 7})
    assert places(machine, 2) == (Place(15, (), "cuda:0"), Place(15, (), "cuda:1"))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 2)), min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_places_add_up(nodes, workers, spares, num_gpus):
    """On any machine: threads fit where workers keep to, cores are not cut, the front has one, devices are even."""
    made = tuple(node(n, 20 * n, cores, threads, 10) for n, (cores, threads) in enumerate(nodes))
    machine = Machine(made, gpus=GPUS[:num_gpus], near={i: i for i in range(num_gpus)})
    found = places(machine, workers, spares)
    assert len(found) == workers + spares
    cores = [core for n in made for core in n.cores]
    total = sum(map(len, cores))
    assert len({p.threads for p in found}) == 1
    assert sum(p.threads for p in found[:workers]) <= max(workers, total - 1)
    for cpus, sharers in Counter(p.cpus for p in found[:workers]).items():
        assert not cpus or found[0].threads * sharers <= max(sharers, len(cpus))
        assert all(set(core) <= set(cpus) or not set(core) & set(cpus) for core in cores)
        assert not set(made[0].cores[0]) & set(cpus) or len(made[0].cores) == 1
    devices = Counter(p.device for p in found[:workers]).values()
    assert max(devices) - min(devices) <= 1


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two nodes of two cores of two threads, a third that holds memory alone; two GPUs; a limit of 6 CPUs above one of 8."""
    files = {
        "sys/devices/system/node/node0/cpulist": "0-1,4-5\n",
        "sys/devices/system/node/node1/cpulist": "2-3,6-7\n",
        "sys/devices/system/node/node2/cpulist": "\n",
        "sys/devices/system/node/node10/cpulist": "8\n",
        "sys/bus/pci/devices/0000:3b:00.0/numa_node": "1\n",
        "sys/bus/pci/devices/0000:5e:00.0/numa_node": "-1\n",
        "proc/self/cgroup": "0::/pods/a\n",
        "sys/fs/cgroup/pods/cpu.max": "600000 100000\n",
        "sys/fs/cgroup/pods/a/cpu.max": "800000 100000\n",
    } | {
        f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{n % 4},{n % 4 + 4}\n"
        for n in range(8)
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_nodes_cores_and_limits_are_read(root):
    """As the kernel writes them; the tightest limit of the control groups above counts."""
    machine = read(root, range(9))
    assert machine.nodes == (
        Node(0, ((0, 4), (1, 5))),
        Node(1, ((2, 6), (3, 7))),
        Node(10, ((8,),)),
    )
    assert machine.quota_cpus == 6.0


def test_only_what_the_process_may_use_is_read(root):
    """An affinity, or a cpuset: half of a core, one node not at all."""
    assert read(root, {0, 1, 5}).nodes == (Node(0, ((0,), (1, 5))),)


def test_the_node_next_to_a_gpu_is_read(root):
    """-1, a GPU that /sys does not have, and one whose address nobody knows: not known."""
    addresses = ("0000:3b:00.0", "0000:5e:00.0", "0000:ff:00.0", "")
    gpus = [Gpu(i, "H200", pci) for i, pci in enumerate(addresses)]
    assert read(root, range(8), gpus).near == {0: 1}


@pytest.mark.parametrize("missing", ["sys", "proc"])
def test_a_machine_that_says_nothing_is_one_node_without_limits(root, missing):
    """Sandboxes have no /sys, or no /proc."""
    (root / missing).rename(root / "gone")
    machine = read(root, {0, 3})
    assert machine.quota_cpus == math.inf
    assert machine.nodes == (
        (Node(0, ((0,), (3,))),) if missing == "sys" else (Node(0, ((0,),)), Node(1, ((3,),)))
    )


def test_no_limit_is_no_limit(root):
    """`max`."""
    for path in root.glob("sys/fs/cgroup/**/cpu.max"):
        path.write_text("max 100000\n")
    assert read(root, range(8)).quota_cpus == math.inf


def test_this_machine_has_the_cpus_that_this_process_may_use():
    """All of them, each once."""
    found = [cpu for n in here().nodes for core in n.cores for cpu in core]
    assert sorted(found) == sorted(os.sched_getaffinity(0))


@settings(deadline=None)
@given(st.sets(st.integers(0, 200)))
def test_lists_of_numbers_are_written_as_they_are_read(numbers):
    """There and back."""
    assert numbers_of(text_of(numbers)) == numbers


def test_lists_are_as_short_as_the_kernel_s():
    """Runs are joined."""
    assert text_of([8, 0, 1, 2, 3, 10, 11]) == "0-3,8,10-11"
