"""A trained model as an artifact: package, registry, gate, lineage."""

from tradewind.models.package import Package, open_package
from tradewind.models.registry import promote, publish, resolve
from tradewind.models.write import write_package

__all__ = ["Package", "open_package", "promote", "publish", "resolve", "write_package"]
