"""`python -P -m tradewind.launch.ray RUN.json`: the driver of a run, on a node of the Ray cluster."""

import sys
from pathlib import Path

from tradewind.launch.ray.driver import main

sys.exit(main(Path(sys.argv[1])))
