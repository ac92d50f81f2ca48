"""The process that compiles: `python -m tradewind.models.builder PACKAGE`, a line of JSON for each program."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator

import msgspec

from tradewind.errors import IntegrityError, TradewindError
from tradewind.models.artefacts import Artefacts, key_of
from tradewind.models.building import Built
from tradewind.models.compile import compile_program, need_compiler
from tradewind.models.package import Package, open_package

LIMIT_S = 900
"""Seconds that one program may take; then the process ends."""
SCRATCH = "inductor"
"""Folder, beside the artefacts, of what the compiler keeps for itself: with its default in /tmp, others could lay code there."""


def build(package: Package, artefacts: Artefacts) -> Iterator[Built]:
    """Compile each program of which there is no sound artefact by this compiler."""
    for name in package.manifest.programs:
        signal.alarm(LIMIT_S)
        try:
            yield _build(package, name, artefacts)
        except (TradewindError, OSError) as error:
            yield Built(program=name, error=str(error))
    signal.alarm(0)


def _build(package: Package, name: str, artefacts: Artefacts) -> Built:
    program, compiler = package.program(name), need_compiler()
    key = key_of(package, program)
    with artefacts.building(key):
        if _is_there(artefacts, key, compiler):
            return Built(program=name)
        started = time.monotonic()
        scratch = artefacts.folder / SCRATCH
        library = compile_program(program, scratch)
        seconds = time.monotonic() - started
        artefacts.publish(key, name, library, compiler, seconds)
        return Built(program=name, built=True, seconds=seconds)


def _is_there(artefacts: Artefacts, key: str, compiler: str) -> bool:
    try:
        found = artefacts.find(key)
    except IntegrityError:
        return False  # damaged: it is made anew
    return found is not None and found[1].compiler == compiler


def main(argv: list[str] | None = None) -> int:
    """Compile a package's programs at the lowest priority, saying what becomes of each."""
    parser = argparse.ArgumentParser(prog="python -m tradewind.models.builder")
    parser.add_argument("package")
    parser.add_argument("--digest", default="")
    args = parser.parse_args(argv)
    report = os.dup(1)
    os.dup2(2, 1)  # what compilers print is no report
    os.nice(19)
    artefacts = Artefacts()
    try:
        artefacts.make()
        scratch = artefacts.folder / SCRATCH
        scratch.mkdir(mode=0o700, exist_ok=True)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(scratch)
        package = open_package(args.package, digest=args.digest or None)
        for built in build(package, artefacts):
            os.write(report, msgspec.json.encode(built) + b"\n")
    except (TradewindError, OSError) as error:
        os.write(report, msgspec.json.encode(Built(program="", error=str(error))) + b"\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
