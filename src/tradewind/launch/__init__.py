"""Where a run goes: planned first, its code snapshotted by content, then started."""
