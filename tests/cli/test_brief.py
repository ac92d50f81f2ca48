"""Commands that look and end do not pay for what they do not use."""

import gc
import subprocess
import sys

import pytest

from tradewind.cli.brief import brief

LOOKS = "import tradewind.cli.plan, tradewind.cli.why, tradewind.launch.local, sys; "
LOOKS += "import tradewind.launch.kubernetes.forecast, tradewind.launch.kubernetes.live, tradewind.launch.kubernetes.status; "
LOOKS += "print(*sys.modules)"


def test_the_collector_rests_inside_and_only_there() -> None:
    """Also when the command raises; one that rested already goes on resting."""
    seen = [gc.isenabled()]
    with brief():
        seen.append(gc.isenabled())
        with pytest.raises(KeyError), brief():
            raise KeyError
        seen.append(gc.isenabled())
    assert [*seen, gc.isenabled()] == [True, False, False, True]


def test_asking_a_cluster_loads_no_agent() -> None:
    """Neither the agent, which takes as long as the answer, nor torch; the store's database only once it is opened."""
    done = subprocess.run([sys.executable, "-c", LOOKS], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "tradewind.launch.kubernetes.outlook" in loaded
    heavy = {"tradewind.agent", "torch", "numpy", "sqlalchemy", "httpx2"}
    assert [name for name in loaded if name in heavy] == []
