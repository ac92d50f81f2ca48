"""The agent as a process of its own: `python -P -m tradewind.agent RUN READY_FD`."""

import os
import sys
from pathlib import Path

from tradewind.agent.job import job_of
from tradewind.agent.lock import held
from tradewind.agent.supervise import supervise
from tradewind.agent.watch import held_back
from tradewind.store import open_store


def main(run_id: str, ready: int) -> int:
    """Supervise a stored run; one byte goes to `ready` once this process holds it and can be told to stop."""
    with open_store() as store:
        run = store.run(run_id)
        job = job_of(run)
        with held_back(), held(Path(run.dir)):
            store.update_run(run.id, pid=os.getpid())
            os.write(ready, b"1")
            os.close(ready)
            return supervise(job, store).exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
