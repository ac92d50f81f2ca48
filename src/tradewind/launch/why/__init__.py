"""Why a job does not run, or ended as it did: ranked causes from the objects of a cluster."""

from tradewind.launch.why.cause import Cause, Code, Evidence
from tradewind.launch.why.dump import World, decode_dump, read_dump
from tradewind.launch.why.explain import Explanation, explain

__all__ = ["Cause", "Code", "Evidence", "Explanation", "World", "decode_dump", "explain", "read_dump"]
