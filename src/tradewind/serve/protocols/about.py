"""What a client may ask about a model beside its metadata: configuration, statistics, and the repository's index."""

from collections.abc import Iterable, Mapping

import msgspec
from prometheus_client.metrics_core import Metric

from tradewind.serve.protocols.v2 import PLATFORM
from tradewind.serve.served import ServedModel
from tradewind.serve.wire import Execution, Port

_TYPES = {"BYTES": "TYPE_STRING"}


class ConfigTensor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One input or output; `dims` without the batch dimension where the model has one."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of a model's configuration."""

    string_value: str


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is served; `max_batch_size` is 0 for a model that takes one request a run.

    The parameter `execution.PROGRAM` says of each program whether it runs compiled, or why not.
    """

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: tuple[ConfigTensor, ...]
    output: tuple[ConfigTensor, ...]
    parameters: dict[str, Parameter] = {}


class Duration(msgspec.Struct, frozen=True, kw_only=True):
    """How often something happened, and how many nanoseconds it took altogether."""

    count: int
    ns: int


class InferStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that ran, those that were refused, the former's time in the queue, and that of batches in the model.

    The time of a batch counts once, however many requests share it.
    """

    success: Duration
    fail: Duration
    queue: Duration
    compute_infer: Duration


class ModelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Since the server started: rows that ran, batches that ran, and where their time went."""

    name: str
    version: str
    inference_count: int
    execution_count: int
    inference_stats: InferStatistics


class Statistics(msgspec.Struct, frozen=True):
    """Statistics of one model, or of all."""

    model_stats: tuple[ModelStatistics, ...]


class IndexedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model of the repository."""

    name: str
    version: str
    state: str
    reason: str = ""


def config(model: ServedModel, execution: Mapping[str, Execution]) -> ModelConfig:
    """Return the model configuration response."""
    batches = model.max_rows > 1
    return ModelConfig(
        name=model.name,
        platform=PLATFORM,
        backend="tradewind",
        max_batch_size=model.max_rows if batches else 0,
        input=tuple(_tensor(port, batches) for port in model.inputs),
        output=tuple(_tensor(port, batches) for port in model.outputs),
        parameters={
            f"execution.{program}": Parameter(string_value=_how(how)) for program, how in execution.items()
        },
    )


def statistics(model: ServedModel, version: str, metrics: Iterable[Metric]) -> ModelStatistics:
    """Return the statistics of one model, read from the server's metrics."""
    sums: dict[str, float] = {}
    for metric in metrics:
        for sample in metric.samples:
            if sample.labels.get("model") == model.program:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value

    def duration(name: str) -> Duration:
        return Duration(count=int(sums.get(name + "_count", 0)), ns=round(sums.get(name + "_sum", 0.0) * 1e9))

    queued, batches = (
        duration("tradewind_queue_duration_seconds"),
        duration("tradewind_batch_duration_seconds"),
    )
    return ModelStatistics(
        name=model.name,
        version=version,
        inference_count=int(sums.get("tradewind_batch_rows_sum", 0)),
        execution_count=batches.count,
        inference_stats=InferStatistics(
            success=Duration(count=queued.count, ns=queued.ns + batches.ns),
            fail=Duration(count=int(sums.get("tradewind_requests_refused_total", 0)), ns=0),
            queue=queued,
            compute_infer=batches,
        ),
    )


def index(models: Iterable[str], version: str, ready: bool, why_not: str) -> tuple[IndexedModel, ...]:
    """Return the repository's index; every model of a replica is ready, or none is."""
    state, reason = ("READY", "") if ready else ("UNAVAILABLE", why_not)
    return tuple(IndexedModel(name=name, version=version, state=state, reason=reason) for name in models)


def _how(execution: Execution) -> str:
    return "compiled" if execution.compiled else f"eager: {execution.why}"


def _tensor(port: Port, batches: bool) -> ConfigTensor:
    return ConfigTensor(
        name=port.name,
        data_type=_TYPES.get(port.dtype, f"TYPE_{port.dtype}"),
        dims=port.shape[1:] if batches else port.shape,
        optional=port.optional,
    )
