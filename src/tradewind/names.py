"""Every environment variable, exit code, file name and metric name that crosses a process boundary."""

import enum

ENV_HOME = "TRADEWIND_HOME"
"""Folder of the local store, blobs and run folders; `~/.tradewind` when unset."""
ENV_STORE = "TRADEWIND_STORE"
"""URL of the store; `sqlite:///$TRADEWIND_HOME/store.db` when unset."""
ENV_BLOBS = "TRADEWIND_BLOBS"
"""URL or folder of the blob store; `$TRADEWIND_HOME/blobs` when unset."""
ENV_RUN = "TRADEWIND_RUN"
"""Id of the run, set in every worker."""
ENV_ATTEMPT = "TRADEWIND_ATTEMPT"
"""Index of the attempt, from 0, set in every worker."""
ENV_RUN_DIR = "TRADEWIND_RUN_DIR"
"""The run's folder, set in every worker; checkpoints live in its `checkpoints/`."""
ENV_JOURNAL = "TRADEWIND_JOURNAL"
"""File to which this worker appends its journal, one JSON object a line."""
ENV_MEMORY = "TRADEWIND_MEMORY"
"""Folder in shared memory where workers stage their state; it outlives them, and the agent removes it."""
ENV_PEERS = "TRADEWIND_PEERS"
"""Addresses, `host:port` with commas between, at which each host's workers take copies of another host's state."""
ENV_GRACE = "TRADEWIND_GRACE_S"
"""Seconds that a worker has from SIGTERM until it is killed."""
ENV_STACKS = "TRADEWIND_STACKS"
"""File to which this worker writes the stacks of its threads when the agent asks."""
ENV_HOSTS = "TRADEWIND_HOSTS"
"""Where the agents of a run's hosts are reached: `name:port` of each, in order, with commas between."""
ENV_HOST = "TRADEWIND_HOST"
"""Which of them this one is, from 0; host 0 leads."""
ENV_ADDRESS = "TRADEWIND_ADDRESS"
"""This host's own IPv4 address, as the others reach it; what its name resolves to when unset."""
ENV_TOKEN = "TRADEWIND_TOKEN"
"""The secret by which the agents of one run know each other."""
ENV_START_DEADLINE = "TRADEWIND_START_DEADLINE_S"
"""Seconds that an agent waits for the others to start before it gives its host back and asks to be requeued."""

AGENT_ENVIRONMENT = (ENV_HOSTS, ENV_HOST, ENV_ADDRESS, ENV_TOKEN, ENV_START_DEADLINE)
"""What agents see and workers do not."""
ENVIRONMENT = (
    ENV_HOME,
    ENV_STORE,
    ENV_BLOBS,
    ENV_RUN,
    ENV_ATTEMPT,
    ENV_RUN_DIR,
    ENV_JOURNAL,
    ENV_MEMORY,
    ENV_STACKS,
    ENV_PEERS,
    ENV_GRACE,
)


class ExitCode(enum.IntEnum):
    """What a process's exit says to whoever started it."""

    OK = 0
    FAILED = 1
    """Failed; a retry may help."""
    USAGE = 2
    """The command line or a spec is wrong; nothing was done."""
    NOT_FOUND = 3
    """The run, model or endpoint that was named does not exist."""
    REFUSED = 4
    """A gate, a verdict or an integrity check said no."""
    NO_VERDICT = 5
    """A measurement could not be trusted, so no verdict was given."""
    DO_NOT_RETRY = 65
    """The same input will fail again (BSD `EX_DATAERR`)."""
    REQUEUE = 75
    """Preempted: state is committed, run me again (BSD `EX_TEMPFAIL`)."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C (128 + SIGINT)."""


CHECKPOINTS_DIR = "checkpoints"
LOGS_DIR = "logs"
JOURNAL_DIR = "journal"
MANIFEST = "manifest.json"
STATUS_BYTES = 32
"""Size of a worker's status page, which holds the name of what it is doing, padded with zeros."""

LABEL_RUN = "tradewind.dev/run"
"""Label of every object of a run on a cluster: the run's id."""
LABEL_ENDPOINT = "tradewind.dev/endpoint"
"""Label of every object of an endpoint on a cluster: the endpoint's name."""
ANNOTATION_MODEL = "tradewind.dev/model"
"""Annotation of an endpoint's Deployment and pods: what they serve, as `recommender@3`."""
LABEL_CODE = "tradewind.dev/code"
"""Label of ConfigMaps that hold a part of some runs' code: the format of that part."""
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_NAME = "app.kubernetes.io/name"
FIELD_MANAGER = "tradewind"
"""Who owns the fields of objects that the launcher applies."""

HEADER_DEADLINE = "x-deadline-ms"
HEADER_REQUEST_ID = "x-request-id"
HEADER_PRIORITY = "x-priority"
HEADER_TENANT = "x-tenant"
"""Whom a request is for. A hint, unless the server has API keys: then the key says, whatever a client claims."""
HEADER_LEVEL = "x-level"
"""In an answer: the quality level that it was made at."""
HEADER_VERSION = "x-tradewind-version"
"""In an answer: the model version that made it."""
HEADER_FEATURES = "x-features"
"""In an answer: what came of fetching its user's features."""
HEADER_MIN_LEVEL = "x-min-level"
"""In a request: the least level that it accepts."""
