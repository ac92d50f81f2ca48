"""Answers a second inside their deadline when more is asked than a server can do: ours, Triton, mosec, LitServe.

Two models (`bench/peers/serving/model.py`): one that holds the GIL, and a ranker in torch; one process runs the model
in every server. Requests come open loop, at Poisson times fixed in advance, at 0.7, 1, 1.5, 2 and 3 times the ceiling:
the most that one process could compute if it did nothing else. It is found anew for each round, and once more after ours,
whose share is of the mean of both: machines have slower quarters of an hour. Goodput is what is answered inside 100 ms of
the instant it was due. Every server gets the same instants; a round starts each afresh, one after the other.

Ours is `tradewind serve MODEL --slo 100ms` for both models. Triton and mosec run with the settings that
`python -m bench.peers.serving.search` found best at 1.5 and 2 times the ceiling (bench/results/serving-search.json);
`mosec` is mosec as it comes. LitServe runs as it comes, but for its batch size, which is everybody's.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping

from bench.harness import Figure, Options, main, ratio, say
from bench.peers.serving import model, search
from bench.peers.serving.servers import Endpoint, serving
from tradewind.scale.load import execute
from tradewind.scale.outcome import LoadPlan, LoadResult

NAME = "overload"
DEADLINE_MS = 100.0
MULTIPLES = (0.7, 1.0, 1.5, 2.0, 3.0)
MODELS = ("spin", "ranker")
CONTENDERS = ("tradewind", "triton", "mosec", "mosec_tuned", "litserve")
SETTLE_S = 1.0
CEILING_S = 3.5
Goodput = dict[tuple[str, str, float], list[float]]
"""By model, contender and multiple of the ceiling, one value a round."""


def measure(options: Options) -> Mapping[str, Figure]:
    """Offer every server the same load at every multiple of the ceiling, round by round."""
    chosen = options.extra.models.split(",") if options.extra.models else MODELS
    names = options.extra.only.split(",") if options.extra.only else CONTENDERS
    seconds = 1.0 if options.quick else options.extra.seconds
    goodput, p99_ms, ceilings = defaultdict(list), defaultdict(list), defaultdict(list)
    for number in range(options.repeats):
        for name in chosen:
            ceiling = found_ceiling(name, number)
            for contender in names:
                with serving(*settings_of(contender, name)) as endpoint:
                    for multiple in MULTIPLES:
                        found = offer(endpoint, multiple * ceiling, seconds, seed=number)
                        goodput[name, contender, multiple].append(found.goodput_per_s)
                        p99_ms[name, contender, multiple].append(found.p99_ms)
                        say(f"round {number + 1}  {name:<7} {contender:<12} {multiple:g}x  {told(found)}")
                if contender == "tradewind":
                    ceilings[name].append((ceiling + found_ceiling(name, number)) / 2)
    return figures(goodput, p99_ms, ceilings)


def found_ceiling(name: str, number: int) -> float:
    """What one process can compute at this moment of a round, in requests a second."""
    rate = model.ceiling(name, seconds=CEILING_S)
    say(f"round {number + 1}  {name:<7} ceiling      {rate:.0f}/s")
    return rate


def settings_of(contender: str, name: str) -> tuple[str, str, Mapping[str, object]]:
    """The server, the model and the settings of a contender."""
    if contender in ("triton", "mosec_tuned"):
        server = contender.removesuffix("_tuned")
        return server, name, search.best(server, name)
    return contender, name, {"deadline_ms": DEADLINE_MS} if contender == "tradewind" else {}


def offer(endpoint: Endpoint, rate: float, seconds: float, seed: int) -> LoadResult:
    """What came of one load."""
    plan = LoadPlan(
        url=endpoint.url,
        rate=rate,
        duration_s=seconds,
        deadline_ms=DEADLINE_MS,
        headers=endpoint.headers,
        seed=seed,
        warmup_s=SETTLE_S,
        connections=2048,
    )
    return execute(plan, [endpoint.body])


def told(found: LoadResult) -> str:
    """One load in a line."""
    late = (
        "" if found.kept_schedule else f", the generator was {found.schedule_lag_p99_ms:.0f} ms late at p99"
    )
    return (
        f"offered {found.offered_per_s:.0f}/s, in time {found.goodput_per_s:.0f}/s, p50 {found.p50_ms:.1f} "
        f"p99 {found.p99_ms:.1f} ms, refused {found.refused}, errors {found.errors}{late}"
    )


def figures(goodput: Goodput, p99_ms: Goodput, ceilings: Mapping[str, list[float]]) -> dict[str, Figure]:
    """Ratios of rounds that ran next to each other: of each model, and the worse of both."""
    found: dict[str, dict[str, Figure]] = defaultdict(dict)
    for name, by_round in ceilings.items():
        for key, figure in of_model(name, goodput, p99_ms, by_round).items():
            found[key][name] = figure
    result = {}
    for key, by_model in found.items():
        worst = max if key.startswith("p99") else min
        result[key] = worst(by_model.values(), key=lambda figure: figure.value)
        result |= {f"{key}_{name}": figure for name, figure in by_model.items()}
    result |= {f"ceiling_{name}": Figure.of(values, "1/s") for name, values in ceilings.items()}
    for (name, contender, multiple), values in goodput.items():
        result[f"goodput_{name}_{contender}_{multiple:g}x"] = Figure.of(values, "1/s")
    return result


def of_model(name: str, goodput: Goodput, p99_ms: Goodput, ceilings: list[float]) -> dict[str, Figure]:
    """The figures of one model."""
    ours = {multiple: goodput[name, "tradewind", multiple] for multiple in MULTIPLES}
    found = {
        "share_of_ceiling_20": Figure.of(
            [own / most for own, most in zip(ours[2.0], ceilings, strict=True)], "share"
        ),
        "goodput_3x_over_1x": ratio(ours[3.0], ours[1.0]),
    }
    for contender in ("triton", "mosec", "mosec_tuned", "litserve"):
        for multiple in (1.5, 2.0) if (name, contender, 1.5) in goodput else ():
            theirs = [max(value, 1.0) for value in goodput[name, contender, multiple]]
            found[f"ratio_{contender}_{multiple * 10:.0f}"] = ratio(ours[multiple], theirs)
    if (name, "triton", 0.7) in p99_ms:
        found["p99_ratio_triton_07"] = ratio(p99_ms[name, "tradewind", 0.7], p99_ms[name, "triton", 0.7])
    return found


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Which part to measure."""
    parser.add_argument("--models", default="", help=f"only these of {','.join(MODELS)}")
    parser.add_argument("--only", default="", help=f"only these of {','.join(CONTENDERS)}")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="length of each load, after a second to settle"
    )


if __name__ == "__main__":
    main(NAME, measure, packages=("torch", "uvloop", "httptools"), add_flags=add_flags)
