"""`tradewind keys`: API keys for the tenants of an endpoint."""

from typing import Literal

import msgspec

from tradewind.cli.flags import OutputFlag
from tradewind.cli.output import emit
from tradewind.errors import SpecError
from tradewind.names import ExitCode


def keys(
    action: Literal["new"],
    tenant: str,
    /,
    *,
    output: OutputFlag = "table",
) -> int:
    """Make an API key. It is shown this once; the server's file of keys holds its digest only.

    Parameters
    ----------
    action
        new: make a key.
    tenant
        Whose key it is: letters, digits, dots, dashes and underscores, at most 64.
    output
        table or json.
    """
    from tradewind.serve.keys import Name, new_key

    try:
        msgspec.convert(tenant, Name)
    except msgspec.ValidationError:
        raise SpecError(
            f"tenant {tenant[:80]!r}: use letters, digits, dots, dashes and underscores, at most 64"
        ) from None
    made = new_key()
    if output == "json":
        emit({"tenant": tenant, "key": made.key, "sha256": made.sha256}, output)
        return ExitCode.OK
    print(f"key for {tenant}, shown this once:\n\n  {made.key}\n")
    print(f"in the file that `tradewind serve --keys FILE` reads:\n\ntenants:\n  {tenant}:\n    keys:")
    print(f'      - "{made.sha256}"')
    return ExitCode.OK
