"""The quick reader of command lines says the same as Cyclopts, or nothing."""

import inspect
import random

import pytest
from cyclopts import CycloptsError

from tradewind.cli import grammar, quick
from tradewind.cli.main import COMMANDS, load

WORDS = (
    "train.py", "job/train", "last", "2", "0", "007", "-1", "+3", "1_000", "1e3", "2.0", "0x10", "x y", "", "-", "--", "-x",
    "none", "None", "NULL", "null", "true", "no", "json", "table", "JSON", "yaml", "a=b", "--help", "--version", "-h", "-ojson",
    "-o=json", "--output=json", "--from=x", "--workers=2", "--no-detach", "--no-follow", "--DETACH", "--dry_run", "--lr", "\u0663",
    "123456789012", "new", "run", "--script", "--run", "--args", "*", "[1]", "{}", '["a"]', '{"a": 1}', "k8s:a",
)  # fmt: skip
PLAIN = {
    "run": ["train.py", "--workers", "2", "--dry-run", "-o", "json"],
    "plan": ["train.py", "--on", "k8s", "--hosts", "2", "--", "--lr", "3"],
    "render": ["train.py", "-t", "jobset"],
    "rerun": ["last", "--detach"],
    "ps": ["--all", "--limit", "5"],
    "show": ["last", "--ledger"],
    "logs": ["-f", "last", "--rank", "3"],
    "why": ["--from", "-", "job/train", "-n", "team"],
    "resize": ["last", "--workers", "4"],
    "stop": ["last", "--now"],
}


def by_cyclopts(name: str, tokens: list[str]) -> "quick.Bound | None":
    """What Cyclopts would call the command with; None where it would not."""
    command = load(name)
    try:
        called, bound, _ = grammar.build_app(name, command).parse_args(
            [name, *tokens], exit_on_error=False, print_error=False
        )
    except CycloptsError:
        return None
    return (list(bound.args), bound.kwargs) if called.__name__ == command.__name__ else None


def drawn(name: str, rng: random.Random) -> list[str]:
    """A command line of the command's own flags, flags of others, values of any kind, in any order."""
    known = [
        spelling
        for flag in quick.keywords(load(name))
        for spelling in (f"--{flag.strip('_').replace('_', '-')}", f"-{flag[0]}")
    ]
    line = list(PLAIN.get(name, [])) if rng.random() < 0.6 else []
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(line) + 1)
        line[at:at] = [rng.choice(rng.choice((known, WORDS)) or WORDS)]
        if rng.random() < 0.3 and len(line) > 1:
            del line[rng.randrange(len(line))]
    return line


@pytest.mark.parametrize("name", COMMANDS)
def test_it_reads_what_cyclopts_reads_or_nothing(name: str) -> None:
    """Of many command lines, right and wrong ones, none is read otherwise than by Cyclopts."""
    rng = random.Random(name)
    lines = (drawn(name, rng) for _ in range(2000))
    read = [(line, found) for line in lines if (found := quick.bind(load(name), line)) is not None]
    for line, found in read[:25]:
        assert found == by_cyclopts(name, line), line
    assert len(read) > 25 or name not in PLAIN


@pytest.mark.parametrize("name", PLAIN)
def test_plain_command_lines_are_read_without_cyclopts(name: str) -> None:
    """What people type is not declined, and means what Cyclopts says."""
    found = quick.bind(load(name), PLAIN[name])
    assert found is not None
    assert found == by_cyclopts(name, PLAIN[name])


@pytest.mark.parametrize("name", PLAIN)
def test_every_flag_is_known(name: str) -> None:
    """No flag of a command that starts quickly has an annotation that makes it slow."""
    for parameter in inspect.signature(load(name)).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            assert quick.spellings(parameter.name, parameter.annotation), parameter
