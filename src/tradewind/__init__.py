"""Tradewind: launch, keep alive, package, serve and explain PyTorch models."""

__all__ = ["__version__"]
__version__ = "0.1.0"
