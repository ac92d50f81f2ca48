"""How much a model can take: load, latency, capacity."""
