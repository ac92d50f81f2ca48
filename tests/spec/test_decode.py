"""tradewind.spec.decode: what a user wrote wrongly is named by file, line, path and remedy."""

import pathlib

import pytest

from tradewind.errors import SpecError
from tradewind.spec import SLO, EndpointSpec, Resources, RunSpec, decode, load_yaml

WRONG = [
    (
        RunSpec,
        "script: a.py\nresources:\n  gpuss: 1\n",
        "3: resources.gpuss: unknown field; did you mean `gpus`?",
    ),
    (RunSpec, "script: a.py\nWorker: 2\n", "2: Worker: unknown field; did you mean `workers`?"),
    (RunSpec, "script: a.py\nzzz: 2\n", "2: zzz: unknown field; valid names: args, checkpoint_dir, env"),
    (RunSpec, "script: a.py\n1: 2\n", "2: 1: unknown field"),
    (RunSpec, "workers: 2\n", "1: script: this field is required"),
    (RunSpec, "", "1: script: this field is required"),
    (RunSpec, "script: ''\n", "1: script: expected `str` of length >= 1"),
    (RunSpec, "script: a.py\nworkers: two\n", "2: workers: expected `int`, got `str`: 'two'"),
    (RunSpec, "script: a.py\nworkers: 0\n", "2: workers: expected `int` >= 1: 0"),
    (RunSpec, "script: a.py\nargs: [--lr, 0.1]\n", "2: args[1]: expected `str`, got `float`: 0.1"),
    (RunSpec, "script: a.py\nenv:\n  A: x\n  B: 1\n", "4: env.B: expected `str`, got `int`: 1"),
    (RunSpec, "script: a.py\nresources: 3\n", "2: resources: expected `object`, got `int`: 3"),
    (RunSpec, "script: a.py\nresources:\n", "2: resources: expected `object`, got `null`"),
    (
        RunSpec,
        "script: a.py\nresources: {memory_gib: -1}\n",
        "2: resources.memory_gib: expected `float` > 0.0",
    ),
    (RunSpec, "- script: a.py\n", "1: expected `object`, got `array`"),
    (RunSpec, "script: a.py\nscript: b.py\n", "2: script: this field is written twice; keep one"),
    (RunSpec, "script: [a\n", "not valid YAML"),
    (
        EndpointSpec,
        "model: m\nslo:\n  latency: 5\n",
        "3: slo.latency: unknown field; did you mean `latency_ms`?",
    ),
    (EndpointSpec, "model: m\nport: 70000\n", "2: port: expected `int` <= 65535: 70000"),
]


@pytest.mark.parametrize(("type_", "text", "message"), WRONG, ids=[text for _, text, _ in WRONG])
def test_what_is_wrong_is_named(type_: type, text: str, message: str, tmp_path: pathlib.Path) -> None:
    """An unknown, missing or ill-typed field names the file, the line, the path in it and the nearest name."""
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_yaml(file, type_)
    assert str(caught.value).startswith(f"{file}:")
    assert message in str(caught.value)


def test_every_problem_is_named_at_once() -> None:
    """Two mistakes in a document are two lines of one error."""
    with pytest.raises(SpecError) as caught:
        decode(RunSpec, "script: a.py\nworkerz: 2\nmax_restarts: no\n")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["workerz", "max_restarts"]


def test_a_missing_file_is_named(tmp_path: pathlib.Path) -> None:
    """A file that is not there is a SpecError with its path, not a traceback."""
    with pytest.raises(SpecError, match=r"nothing\.yaml"):
        load_yaml(tmp_path / "nothing.yaml", RunSpec)


def test_a_whole_document(tmp_path: pathlib.Path) -> None:
    """YAML gives the same struct as Python, from text and from a file."""
    text = "script: a.py\nargs: [--lr, '0.1']\nworkers: 2\nenv: {A: b}\nresources: {gpus: 1, memory_gib: 8}\n"
    want = RunSpec(
        script="a.py",
        args=("--lr", "0.1"),
        workers=2,
        env={"A": "b"},
        resources=Resources(gpus=1, memory_gib=8.0),
    )
    (tmp_path / "job.yaml").write_text(text)
    assert decode(RunSpec, text) == want == decode(RunSpec, tmp_path / "job.yaml")
    assert decode(EndpointSpec, "model: m\nslo: {latency_ms: 20}\n").slo == SLO(latency_ms=20)


def test_endless_yaml_is_refused() -> None:
    """An alias inside its own anchor is an error, not an endless loop."""
    for text in ("script: a\nenv: &e {a: *e}\n", "&a [*a]\n"):
        with pytest.raises(SpecError):
            decode(RunSpec, text)
