"""One agent per host: it starts workers, notices failures by events, and recovers the group."""

from tradewind.agent.job import Job, job_of, log_path
from tradewind.agent.recorder import Progress
from tradewind.agent.supervise import Outcome, supervise

__all__ = ["Job", "Outcome", "Progress", "job_of", "log_path", "supervise"]
