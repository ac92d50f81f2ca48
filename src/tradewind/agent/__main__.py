"""The agent as a process of its own: `python -m tradewind.agent RUN READY_FD`."""

import os
import sys
from pathlib import Path

from tradewind.agent.job import job_of
from tradewind.agent.lock import held
from tradewind.agent.supervise import supervise
from tradewind.store import open_store


def main(run_id: str, ready: int) -> int:
    """Supervise a stored run; one byte goes to `ready` once this process holds it."""
    with open_store() as store:
        run = store.run(run_id)
        with held(Path(run.dir)):
            os.write(ready, b"1")
            os.close(ready)
            return supervise(job_of(run), store).exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
