"""What is read out of a log or an error file: real logs of torch, and scripts that a real Python runs."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.diagnose import logs
from tradewind.diagnose.last_words import (
    TAIL_BYTES,
    TAIL_LINES,
    LastWords,
    from_crash,
    from_error_file,
    from_log,
    tail,
)

SCRIPTS = {
    "plain": ("def f():\n    {}['user']\nf()", "KeyError: 'user'", ("in f", "KeyError: 'user'")),
    "no message": ("assert False", "AssertionError", ("in <module>",)),
    "local type": (
        "def f():\n    class Odd(Exception): pass\n    raise Odd('x')\nf()",
        "f.<locals>.Odd: x",
        (),
    ),
    "note": (
        "e = ValueError('bad')\ne.add_note('while reading shard 3')\nraise e",
        "ValueError: bad",
        ("while reading shard 3",),
    ),
    "several lines": (
        "raise ValueError('first\\n  second\\n  third')",
        "ValueError: first",
        ("  second\n  third",),
    ),
    "raised from": (
        "try: {}['user']\nexcept KeyError as e: raise RuntimeError('step 3') from e",
        "RuntimeError: step 3",
        ("KeyError: 'user'", "direct cause"),
    ),
    "while handling": (
        "try: {}['user']\nexcept KeyError: 1 / 0",
        "ZeroDivisionError: division by zero",
        ("KeyError: 'user'", "During handling"),
    ),
    "group": (
        "raise ExceptionGroup('two', [ValueError('a'), KeyError('b')])",
        "ExceptionGroup: two (2 sub-exceptions)",
        ("ValueError: a", "KeyError: 'b'"),
    ),
    "syntax": ("def f(:\n    pass", "SyntaxError: invalid syntax", ("def f(:",)),
    "import": ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'", ()),
    "logged earlier": (
        """
        import logging
        try: {}['user']
        except KeyError: logging.exception('skipped one')
        raise ValueError('the real one')
        """,
        "ValueError: the real one",
        (),
    ),
    "ignored afterwards": (
        """
        class Handle:
            def __del__(self): raise OSError('closing')
        handle = Handle()
        raise ValueError('the real one')
        """,
        "ValueError: the real one",
        (),
    ),
    "at exit": (
        "import atexit\natexit.register(lambda: 1 / 0)\nraise ValueError('the real one')",
        "ValueError: the real one",
        (),
    ),
    "logging broke": (
        """
        import atexit, logging
        atexit.register(lambda: logging.error('%d', 'word'))
        raise ValueError('the real one')
        """,
        "ValueError: the real one",
        (),
    ),
    "a thread's, later": (
        """
        import threading
        ended = threading.Event()
        def later():
            threading.main_thread().join()
            1 / 0
        threading.Thread(target=later).start()
        raise ValueError('the real one')
        """,
        "ValueError: the real one",
        (),
    ),
    "a thread's alone": (
        "import sys, threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start(); t.join(); sys.exit(1)",
        "ZeroDivisionError: division by zero",
        (),
    ),
    "after an open progress bar": (
        "import sys\nsys.stderr.write('\\r 50%|#####     | 5/10 [00:00<00:00]')\nraise ValueError('bad')",
        "ValueError: bad",
        ("Traceback",),
    ),
    "only words": ("print('cannot go on')\nraise SystemExit(1)", "", ("cannot go on",)),
    "exit with words": ("raise SystemExit('no data in /data')", "", ("no data in /data",)),
    "only harmless": (
        "import atexit\natexit.register(lambda: 1 / 0)\nprint('done')\nraise SystemExit(1)",
        "",
        ("done",),
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_that_fail(name: str, tmp_path: Path) -> None:
    """The exception that ended a real Python process is found, with what explains it, and no other."""
    body, exception, parts = SCRIPTS[name]
    script, log = tmp_path / "script.py", tmp_path / "rank0.log"
    script.write_text(textwrap.dedent(body))
    with log.open("wb") as output:
        subprocess.run([sys.executable, "-u", script], stdout=output, stderr=output, check=False, timeout=60)
    found = from_log(log)
    assert found.exception == exception, log.read_text()
    for part in parts:
        assert part in found.text


@pytest.mark.parametrize(
    ("log", "exception", "last"),
    [
        (logs.VALUE_ERROR, "ValueError: bad batch 7", "ValueError: bad batch 7"),
        (
            logs.STATE_DICT,
            "RuntimeError: Error(s) in loading state_dict for Linear:",
            "\tsize mismatch for bias: copying a param with shape torch.Size([4]) from checkpoint.",
        ),
        (
            logs.DATA_LOADER,
            "KeyError: Caught KeyError in DataLoader worker process 0.",
            "KeyError: 'no item 0'",
        ),
        (logs.WRAPPED_PEER, "trainer.TrainerError: step 7 failed", "trainer.TrainerError: step 7 failed"),
        (
            f" 50%|#####     | 5/10 [00:00<00:00]{logs.VALUE_ERROR}",
            "ValueError: bad batch 7",
            "ValueError: bad batch 7",
        ),
        (f"{logs.VALUE_ERROR}saved 3 shards\n", "ValueError: bad batch 7", "ValueError: bad batch 7"),
        (
            "Traceback (most recent call last):\nValueError: bad\n  more\n[W1124 15:47:01.2 a.cpp:75] Warning: x\n",
            "ValueError: bad",
            "  more",
        ),
        (
            "Traceback (most recent call last):\nValueError: bad\n/a/b.py:254: UserWarning: leaked\n  warn()\n",
            "ValueError: bad",
            "ValueError: bad",
        ),
    ],
)
def test_logs_with_rank_prefixes(log: str, exception: str, last: str, tmp_path: Path) -> None:
    """torch's `[rank1]: ` is taken off, and a message keeps its further lines but not its neighbours."""
    path = tmp_path / "rank1.log"
    path.write_text(log)
    found = from_log(path)
    assert found.exception == exception
    assert found.text.splitlines()[0] == "Traceback (most recent call last):"
    assert found.text.splitlines()[-1] == last
    assert "[rank" not in found.text


def test_lines_after_the_exception_are_few(tmp_path: Path) -> None:
    """Output that follows a traceback does not push the traceback out of what is shown."""
    path = tmp_path / "rank0.log"
    noise = "".join(f"epoch {n} done\n" for n in range(100))
    path.write_text(f'Traceback (most recent call last):\n  File "a.py", line 1\nValueError: bad\n{noise}')
    lines = from_log(path).text.splitlines()
    assert lines[2] == "ValueError: bad"
    assert len(lines) == 3 + 8


def test_a_long_traceback_keeps_its_end(tmp_path: Path) -> None:
    """Of a deep traceback the last frames are kept, and the exception."""
    frames = "".join(f'  File "a.py", line {n}, in f\n    f()\n' for n in range(200))
    path = tmp_path / "rank0.log"
    path.write_text(f"Traceback (most recent call last):\n{frames}RecursionError: too deep\n")
    lines = from_log(path).text.splitlines()
    assert len(lines) == TAIL_LINES
    assert lines[-3:] == ['  File "a.py", line 199, in f', "    f()", "RecursionError: too deep"]


def test_only_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    """A log of any size costs its last 64 KiB, and bytes that are not text do no harm."""
    path = tmp_path / "rank0.log"
    path.write_bytes(b"first\n" + b"\xff\xfe" * TAIL_BYTES + b"\nlast\n")
    assert tail(path)[-1] == "last"
    assert sum(map(len, tail(path))) <= TAIL_BYTES
    assert from_log(path).text.endswith("last")


def test_no_log_says_nothing(tmp_path: Path) -> None:
    """A worker that died before its log was made has no last words."""
    assert from_log(tmp_path / "none.log") == LastWords()
    assert from_crash(tmp_path / "none.log") == LastWords()
    assert from_error_file(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    ("log", "exception"),
    [
        (logs.BAD_ALLOC, "std::bad_alloc: std::bad_alloc"),
        (logs.WATCHDOG, "c10::DistBackendError: [Rank 6] NCCL watchdog thread terminated with exception: "),
        (logs.VALUE_ERROR, ""),
        ("terminate called after throwing an instance of 'int'\n", "int"),
    ],
)
def test_a_crash_names_what_terminated_it(log: str, exception: str, tmp_path: Path) -> None:
    """Of a process ended by a signal the C++ exception is read, and a traceback that was handled is not."""
    path = tmp_path / "rank0.log"
    path.write_text(log)
    found = from_crash(path)
    assert found.exception.startswith(exception)
    assert bool(found.exception) == bool(exception)
    assert found.text == log.strip("\n")


ERROR_FILE = {
    "message": {
        "message": "ValueError: bad batch 7\nmore",
        "extraInfo": {
            "py_callstack": "Traceback (most recent call last):\n  ...\nValueError: bad batch 7\nmore\n",
            "timestamp": "1795535387",
        },
    }
}


def test_the_file_that_record_writes(tmp_path: Path) -> None:
    """Exception, traceback and time come out of the error file; its whole seconds are read as their end."""
    path = tmp_path / "error.json"
    path.write_text(json.dumps(ERROR_FILE))
    found = from_error_file(path)
    assert found is not None
    assert found.exception == "ValueError: bad batch 7"
    assert found.text.splitlines()[-2:] == ["ValueError: bad batch 7", "more"]
    assert found.raised_s == 1795535388.0


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"message": "ValueError: x"}', LastWords("ValueError: x", "ValueError: x")),
        ('{"message": {"message": "ValueError: x", "extraInfo": null}}', LastWords("ValueError: x", "ValueError: x")),
        (
            '{"message": {"message": "E: x", "extraInfo": {"timestamp": "12.25"}}}',
            LastWords("E: x", "E: x", 12.25),
        ),
        ('{"message": {"message": "E: x", "extraInfo": {"timestamp": "now"}}}', LastWords("E: x", "E: x")),
        ('{"message": {"mess', None),
        ("[]", None),
        ('{"message": 7}', None),
        ("", None),
    ],
)  # fmt: skip
def test_other_error_files(body: str, expected: LastWords | None, tmp_path: Path) -> None:
    """Older forms of the error file are read, and one that was torn or holds something else is passed over."""
    path = tmp_path / "error.json"
    path.write_text(body)
    assert from_error_file(path) == expected
