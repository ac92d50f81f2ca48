"""What an explanation is made of: a cause with its evidence, its remedy and its weight."""

import enum

from tradewind.record import Record


class Code(enum.StrEnum):
    """Stable names of causes; each has a page `docs/why/CODE.md`."""

    QUOTA_EXCEEDED = "quota-exceeded"
    NEVER_FITS = "never-fits"
    NO_CAPACITY = "no-capacity"
    FRAGMENTATION = "fragmentation"
    GANG_INCOMPLETE = "gang-incomplete"
    TAINT = "taint"
    NODE_SELECTOR = "node-selector"
    AFFINITY = "affinity"
    CORDONED = "cordoned"
    QUEUE_WAITING = "queue-waiting"
    SUSPENDED = "suspended"
    SCHEDULING_GATE = "scheduling-gate"
    SCHEDULER_MISSING = "scheduler-missing"
    PRIORITY_MISSING = "priority-missing"
    ADMISSION_DENIED = "admission-denied"
    SERVICE_ACCOUNT = "service-account"
    IMAGE_PULL = "image-pull"
    VOLUME_UNBOUND = "volume-unbound"
    MOUNT_FAILED = "mount-failed"
    CONFIG_MISSING = "config-missing"
    PREEMPTED = "preempted"
    EVICTED = "evicted"
    NODE_LOST = "node-lost"
    OUT_OF_MEMORY = "out-of-memory"
    USER_ERROR = "user-error"
    CRASH_LOOP = "crash-loop"
    KILLED = "killed"
    HANG = "hang"
    DEADLINE = "deadline"
    BACKOFF_LIMIT = "backoff-limit"
    RENDEZVOUS = "rendezvous"
    STARTING = "starting"
    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


class Weight:
    """How directly a cause explains where the job stands now; the ranking is by this number alone."""

    ENDED = 0.95
    """The job is over, and an object says why."""
    BLOCKS = 0.9
    """An object says so, or its arithmetic proves it, and no waiting will help."""
    HAPPENED = 0.86
    """It befell the pods of the job, and they have not recovered from it."""
    CLOSED = 0.85
    """Nodes are closed to the pods by a decision that can be taken back; less than what emptied the nodes."""
    WAITS = 0.8
    """It may pass by itself: others end, a queue moves on."""
    PARTLY = 0.7
    """True, but lifting it alone is not the shortest way."""
    FOLLOWS = 0.6
    """The consequence of another cause where there is one."""
    SAID = 0.5
    """Only a message says so; the objects in the dump neither prove nor refute it."""
    PAST = 0.3
    """It happened, and the job recovered from it."""
    REST = 0.1
    """Nothing else was found."""


class Evidence(Record):
    """One fact: which field of which object holds which value, since when."""

    object: str
    field: str
    value: str
    time: str = ""


class Cause(Record):
    """One explanation of where a job stands."""

    code: Code
    text: str
    remedy: str
    weight: float
    evidence: tuple[Evidence, ...] = ()


VALUE_LIMIT = 1000


def fact(object: str, field: str, value: object, time: str = "") -> Evidence:
    """Evidence that is safe to print."""
    return Evidence(object=plain(object), field=field, value=plain(str(value)), time=plain(time))


def plain(text: str) -> str:
    """A stranger's text without what a terminal would obey, and no longer than anyone reads."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text[:VALUE_LIMIT])
