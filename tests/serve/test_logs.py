"""Log lines: where they go, and what they hold."""

import json
import subprocess
import sys


def test_a_bug_of_ours_is_in_the_log_with_its_traceback():
    """One JSON line; the client gets a 500 that says no more than where to look."""
    code = """
from tradewind.serve import app, logs
logs.to_stderr()
try:
    1 // 0
except ZeroDivisionError as error:
    print(app._failed(error).status)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "500\n"
    line = json.loads(done.stderr)
    assert (line["event"], line["level"]) == ("bug", "error")
    assert "Traceback" in line["exception"]
    assert "ZeroDivisionError" in line["exception"]
