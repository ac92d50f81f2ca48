"""Compiles what every request goes through, where TRADEWIND_COMPILE=1 asks for it; all else is in pyproject.toml.

mypyc makes extension modules of typed Python (`docs/decisions/0027-a-compiled-front.md`). The sources run as they are
where there are none: `make setup` makes them where there is a C compiler, and goes without where there is not.
"""

import hashlib
import json
import os
import pathlib

from setuptools import setup
from setuptools.command.build_ext import build_ext

SERVE = pathlib.Path("src/tradewind/serve")
HOT = [
    "accesslog",
    "admission",
    "app",
    "batching",
    "busy",
    "caller",
    "classes",
    "dispatch",
    "entry",
    "fairness",
    "forms",
    "handlers",
    "jobs",
    "lanes",
    "levels",
    "metrics_aliases",
    "popular",
    "profile",
    "queues",
    "routes",
    "series",
    "served",
    "smooth",
    "http/arrival",
    "http/connection",
    "http/message",
    "http/turns",
]
SOURCES = [SERVE / f"{name}.py" for name in HOT]


class Build(build_ext):
    """Builds, and notes what of: a module that was compiled from other sources is not to run in their place."""

    def run(self) -> None:
        super().run()
        folder = SERVE if self.inplace else pathlib.Path(self.build_lib, *SERVE.parts[1:])
        digests = {
            f"{name}.py": hashlib.sha256((SERVE / f"{name}.py").read_bytes()).hexdigest() for name in HOT
        }
        (folder / "compiled.json").write_text(json.dumps(digests, indent=1) + "\n")


def extensions() -> list[object]:
    from mypyc.build import mypycify

    return mypycify(["--config-file", "mypyc.ini", *map(str, SOURCES)], opt_level="2", debug_level="0")


if os.environ.get("TRADEWIND_COMPILE") == "1":
    setup(ext_modules=extensions(), cmdclass={"build_ext": Build})
else:
    setup()
