"""The `tradewind` command line: each command is imported only when it is the one that was typed."""

import sys

from tradewind import __version__
from tradewind.errors import TradewindError
from tradewind.names import ExitCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

COMMANDS = {
    "run": ("runs:run", "Run a script on N workers, keep it alive, record what happened."),
    "plan": (
        "plan:plan",
        "Say before a run whether and where it fits, what it costs, how long others waited.",
    ),
    "render": ("cluster:render", "Print a run's manifests for a cluster: Job, JobSet, TrainJob or RayJob."),
    "rerun": ("runs:rerun", "Run the very bytes of an earlier run again."),
    "ps": ("runs:ps", "List runs, newest first."),
    "show": ("runs:show", "Show one run: attempts, failures, recovery, metrics, ledger."),
    "logs": ("runs:logs", "Print a run's logs, the first failure first; -f follows."),
    "why": ("why:why", "Explain why a run or a Job waits or failed: causes best first."),
    "resize": ("runs:resize", "Let a run go on with another number of workers."),
    "stop": ("runs:stop", "Stop a run: checkpoint, then end."),
    "chaos": ("chaos:chaos", "Kill a run's workers again and again; count what was done."),
    "publish": ("models:publish", "Publish a packaged model as an immutable version NAME@N."),
    "models": ("models:models", "List model versions and their aliases."),
    "promote": ("models:promote", "Move an alias to a version, if its offline gate agrees."),
    "compile": ("compile:compile", "Compile a model's programs for this machine, and try them."),
    "serve": ("serve:serve", "Serve a model inside a latency budget."),
    "deploy": ("deploy:deploy", "Serve a model on a cluster, or change what is served there."),
    "endpoints": ("deploy:endpoints", "List the endpoints of a cluster."),
    "undeploy": ("deploy:undeploy", "Take an endpoint away from a cluster."),
    "keys": ("keys:keys", "Make an API key for a tenant of an endpoint."),
    "load": ("load:load", "Offer open-loop load to an endpoint and measure goodput."),
    "report": ("load:report", "Write one self-contained HTML page about a run."),
    "doctor": ("load:doctor", "Check this machine for what Tradewind needs."),
}
"""Command -> (module in `tradewind.cli` : function, one line of help). A test keeps the list."""


USAGE = """Usage: tradewind COMMAND [OPTIONS]

Train, keep alive, package, serve and explain PyTorch models.

Commands:
{commands}

Begin with:  tradewind run SCRIPT --workers 2 -- SCRIPT-ARGS
One command: tradewind COMMAND --help"""


def overview() -> str:
    """What `tradewind --help` prints: from the table alone, so that it costs one interpreter start."""
    return USAGE.format(
        commands="\n".join(f"  {name:<9}  {summary}" for name, (_, summary) in COMMANDS.items())
    )


def main(tokens: list[str] | None = None) -> None:
    """Run the command line and exit with a code of `tradewind.names.ExitCode`."""
    code: int = ExitCode.OK
    try:
        code = invoke(sys.argv[1:] if tokens is None else tokens)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader left (`tradewind ps | head`): nobody is there to be told. What is left unwritten would be tried
        # again at exit, and turn the exit code into 120.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def invoke(tokens: list[str]) -> int:
    """Run one command line; return its exit code."""
    if not tokens or tokens[0] in ("--help", "-h", "--version"):
        print(__version__ if tokens[:1] == ["--version"] else overview())
        return ExitCode.OK
    if tokens[0] not in COMMANDS:
        print(f"tradewind: {unknown_command(tokens[0])}", file=sys.stderr)
        return ExitCode.USAGE
    try:
        result = call(*tokens)
    except TradewindError as error:
        print(f"tradewind: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return int(result) if isinstance(result, int) else ExitCode.OK


def call(name: str, *tokens: str) -> "Any":
    """Call the command that was typed with what was typed; see `tradewind.cli.quick` for who reads that."""
    from tradewind.cli.quick import bind

    command = load(name)
    bound = bind(command, list(tokens))
    if bound is not None:
        return command(*bound[0], **bound[1])
    from tradewind.cli import grammar

    return grammar.call(name, command, list(tokens))


def load(name: str) -> "Callable[..., Any]":
    """The function of a command, its module imported."""
    module, _, function = COMMANDS[name][0].partition(":")
    path = f"tradewind.cli.{module}"
    __import__(path)
    found: Callable[..., Any] = getattr(sys.modules[path], function)
    return found


def unknown_command(word: str) -> str:
    """What to say to a command that does not exist, without importing those that do."""
    import difflib

    near = difflib.get_close_matches(word, COMMANDS, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"the commands are {', '.join(COMMANDS)}"
    return f"there is no command '{word}'; {hint}"
