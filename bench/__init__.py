"""One file per claim, each measured side by side with a named peer."""
