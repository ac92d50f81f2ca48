"""Where a run goes: planned first, its code snapshotted by content, then started."""

from tradewind.launch.plan import Plan, plan

__all__ = ["Plan", "plan"]
