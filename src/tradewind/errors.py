"""The error tree: one root, each message says what, where and what to do."""

from tradewind.names import ExitCode


class TradewindError(Exception):
    """Root of every error a user may meet; `exit_code` is what the command ends with."""

    exit_code = ExitCode.FAILED


class SpecError(TradewindError):
    """What was asked for is not well formed; names the source, the path in it and the remedy."""

    exit_code = ExitCode.USAGE


class NotFoundError(TradewindError):
    """A run, model version, alias or blob that was named does not exist."""

    exit_code = ExitCode.NOT_FOUND


class StoreError(TradewindError):
    """The store or a blob store cannot be opened or used; names it."""


class ClusterError(TradewindError):
    """A cluster cannot be reached or refuses what it was asked; names it, and what it said."""


class IntegrityError(TradewindError):
    """Stored bytes are not the bytes that were written; names the file."""

    exit_code = ExitCode.REFUSED


class GateError(TradewindError):
    """A promotion was refused by its offline gate."""

    exit_code = ExitCode.REFUSED


class MissingExtraError(TradewindError):
    """A part needs an optional dependency; names the `pip install` that brings it."""

    exit_code = ExitCode.USAGE
