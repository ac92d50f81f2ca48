"""Eager is the oracle: a compiled program is run beside it on samples, and used if it gives the same sooner."""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch

from tradewind.models.compiled import Compiled
from tradewind.models.program import Program
from tradewind.serve.wire import Execution, Timing

GAIN = 0.98
"""Compiled is used where it takes at most this share of eager's time: less is within what a median wavers by."""
TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 1e-2,
    torch.bfloat16: 4e-2,
}
"""By which share an output may differ: of its own size, and the mean size of its tensor, since what is near zero is the
rest of a sum of larger terms. Compiled code adds in another order, over hundreds of terms and some layers deep: about
1,000 roundings of float32, and 10 of float16 and bfloat16, whose sums are kept in float32. Anything else is equal."""
SMALLEST = 1e-12
"""Size under which values are as good as zero."""
Outputs = Sequence[torch.Tensor]


class Trial:
    """Runs both on whatever it is called with; eager's outputs are the answer."""

    def __init__(self, eager: Program, compiled: Compiled, clock: Callable[[], float], repeats: int) -> None:
        self.rows = 0
        self._eager = eager
        self._compiled = compiled
        self._clock = clock
        self._repeats = repeats
        self._seconds: dict[int, dict[str, list[float]]] = defaultdict(lambda: {"eager": [], "compiled": []})
        self._difference = 0.0
        self._failed = ""
        self._calls = 0

    def __call__(self, inputs: tuple[torch.Tensor, ...]) -> Outputs:
        expected: Outputs = self._eager.graph_module(*inputs)
        self._calls += 1
        if self._failed:
            return expected
        try:
            self._difference = max(self._difference, _compare(self._eager, self._compiled(inputs), expected))
            for _ in range(self._repeats):
                self._time("eager", lambda: self._eager(*inputs))
                self._time("compiled", lambda: self._compiled.fits(inputs) and self._compiled(inputs))
        except (ValueError, RuntimeError) as error:
            self.fail(str(error))
        return expected

    def fail(self, why: str) -> None:
        """Take it for failed; the first reason is kept."""
        self._failed = self._failed or (why.splitlines() or ["no message"])[0][:300]

    def verdict(self, given: bool) -> Execution:
        """What was found; `given` where another worker has measured that it is faster."""
        timings = tuple(
            Timing(
                rows=rows, eager_s=statistics.median(s["eager"]), compiled_s=statistics.median(s["compiled"])
            )
            for rows, s in self._seconds.items()
            if s["compiled"]
        )
        why = self._failed
        if not why and not self._calls:
            why = "no sample was of sizes that it was compiled for"
        elif not why and not given:
            why = _slower(timings)
        difference = self._difference if self._calls else None
        return Execution(compiled=not why, why=why, difference=difference, timings=timings)

    def _time(self, which: str, run: Callable[[], object]) -> None:
        start = self._clock()
        run()
        self._seconds[self.rows][which].append(self._clock() - start)


def _compare(program: Program, found: Outputs, expected: Outputs) -> float:
    """Return the largest difference of any output. Raises ValueError naming the output that differs by too much."""
    worst = 0.0
    for spec, ours, theirs in zip(program.signature.outputs, found, expected, strict=True):
        if ours.dtype is not theirs.dtype or ours.shape != theirs.shape:
            raise ValueError(f"output {spec.name!r} is {ours.dtype} {list(ours.shape)} and not as eager's")
        difference = _difference(ours, theirs)
        if not difference <= TOLERANCE.get(theirs.dtype, 0.0):
            raise ValueError(f"output {spec.name!r} differs from eager's by {difference:.2g} of its size")
        worst = max(worst, difference)
    return worst


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the largest |ours - theirs| / (|theirs| + mean |theirs|); infinite where other values are NaN or infinite."""
    if not theirs.is_floating_point():
        return 0.0 if torch.equal(ours, theirs) else math.inf
    finite = torch.isfinite(theirs)
    if not torch.equal(finite, torch.isfinite(ours)):
        return math.inf
    special = [t[~finite].nan_to_num(nan=0.0) for t in (ours, theirs)]
    if not torch.equal(*special):
        return math.inf
    a, b = (t[finite].double() for t in (ours, theirs))
    if not a.numel():
        return 0.0
    share = (a - b).abs() / (b.abs() + b.abs().mean()).clamp(min=SMALLEST)
    return float(share.max())


def _slower(timings: Sequence[Timing]) -> str:
    """Why not to use it: the geometric mean over batch sizes of its share of eager's time; "" where it is faster.

    Every batch size counts as much as another: which are common depends on the traffic, which is not known here.
    """
    ratios = [max(timing.compiled_s, 1e-9) / max(timing.eager_s, 1e-9) for timing in timings]
    share = statistics.geometric_mean(ratios) if ratios else 1.0
    return "" if share <= GAIN else f"not faster: {share:.2f} of eager's time"
