"""tradewind.spec structs: checked however they are built; to the store and back."""

import subprocess
import sys

import msgspec
import pytest

from tradewind.errors import SpecError
from tradewind.spec import SLO, EndpointSpec, Resources, RunSpec, from_stored, to_dict

WRONG = [
    (lambda: RunSpec(script="a.py", workers=0), "RunSpec: workers: expected `int` >= 1: 0"),
    (lambda: RunSpec(script="a.py", env={"A": 1}), "RunSpec: env.A: expected `str`, got `int`: 1"),
    (lambda: Resources(gpus=-1), "Resources: gpus: expected `int` >= 0: -1"),
    (lambda: SLO(percentile=101), "SLO: percentile"),
    (lambda: EndpointSpec(model=""), "EndpointSpec: model"),
]


@pytest.mark.parametrize(("build", "message"), WRONG)
def test_a_spec_built_in_python_is_checked(build, message: str) -> None:
    """Python gets the same checks as YAML."""
    with pytest.raises(SpecError) as caught:
        build()
    assert message in str(caught.value)


def test_a_changed_copy_is_checked() -> None:
    """A copy with other fields, as flags make over a file, gets the same checks."""
    spec = msgspec.structs.replace(RunSpec(script="a.py"), workers=2)
    assert spec.workers == 2
    with pytest.raises(SpecError, match="workers"):
        msgspec.structs.replace(spec, workers=0)


def test_a_spec_is_frozen() -> None:
    """A spec cannot be changed after it is built."""
    with pytest.raises(AttributeError):
        RunSpec(script="a.py").workers = 2  # type: ignore[misc]


def test_stored_specs_ignore_what_they_do_not_know() -> None:
    """A spec written by a newer version is read without its new fields, at every depth."""
    spec = RunSpec(script="a.py", resources=Resources(gpus=1), args=("x",))
    data = to_dict(spec)
    assert from_stored(RunSpec, data) == spec
    data["new"], data["resources"]["new"] = 1, 2
    assert from_stored(RunSpec, data) == spec
    with pytest.raises(SpecError, match="stored RunSpec: workers"):
        from_stored(RunSpec, data | {"workers": "two"})


def test_importing_is_light() -> None:
    """Importing spec and store loads no heavy library."""
    heavy = ["torch", "numpy", "pyarrow", "sqlalchemy", "httptools", "httpx2", "httpx", "obstore", "psycopg"]
    code = f"import sys, tradewind.spec, tradewind.store; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
