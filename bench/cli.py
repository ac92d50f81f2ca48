"""How long `tradewind --help` takes, as a whole process, beside `python -c pass`."""

import sys
from collections.abc import Mapping
from pathlib import Path

from bench.harness import Figure, Options, interleave, main, ratio, wall_seconds

NAME = "cli"


def measure(options: Options) -> Mapping[str, Figure]:
    """Whole-process wall time of `tradewind --help`, interleaved with a bare interpreter's."""
    command = Path(sys.executable).with_name("tradewind")
    repeats = 3 if options.quick else max(options.repeats, 15)
    times = interleave(
        {
            "tradewind --help": lambda: wall_seconds([str(command), "--help"]),
            "python -c pass": lambda: wall_seconds([sys.executable, "-c", "pass"]),
        },
        repeats,
    )
    helped, bare = times["tradewind --help"], times["python -c pass"]
    return {
        "help_ms": Figure.of([1000 * seconds for seconds in helped], "ms"),
        "ratio_python": ratio(helped, bare),
    }


if __name__ == "__main__":
    main(NAME, measure, packages=("cyclopts",))
