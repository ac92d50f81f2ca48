"""The `tradewind` command: parse, call, print."""
