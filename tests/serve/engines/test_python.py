"""A class of the user's own behind an endpoint."""

from pathlib import Path

import httpx2
import numpy as np
import pytest

from tests.serve.conftest import running
from tradewind.errors import SpecError
from tradewind.serve.engines.python import PythonRunner
from tradewind.serve.engines.reference import is_reference, locate
from tradewind.serve.server import locate as locate_model

MODEL = '''
import numpy as np

class Ranker:
    inputs = {"x": "FP32[-1, 3]", "bias": "INT64[-1]"}
    outputs = {"sum": "FP32[-1]", "rows": "INT64[-1]"}

    def __call__(self, x, bias):
        if (bias < 0).any():
            raise ValueError("no negative bias")
        return {"sum": x.sum(1) + bias, "rows": np.full(len(x), len(x))}


class Alone:
    """Takes any number of numbers, and no batch."""

    inputs = {"x": "FP64[2, -1]"}
    outputs = {"total": "FP64[1]"}

    def __call__(self, x):
        return x.sum(keepdims=True)[0]


class Sampled(Ranker):
    def sample(self, rows):
        self.sampled = rows
        return {"x": np.ones((rows, 3)), "bias": np.full(rows, 7)}


function = len
class NoPorts: pass
class BadPort:
    inputs = {"x": "FLOAT[-1]"}
    outputs = {"y": "FP32[-1]"}
class Lies:
    inputs = {"x": "FP32[-1]"}
    outputs = {"y": "FP32[-1]"}
    def __call__(self, x):
        return {"z": x}
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "torch.py"  # A name that must not hide the library.
    path.write_text(MODEL)
    return path


def test_rows_of_several_requests_are_one_batch(file: Path) -> None:
    """The class gets whole batches, and dtypes as it stated them."""
    runner = PythonRunner(f"{file}:Ranker", 8)
    found = runner.run({"x": np.ones((4, 3), np.float32), "bias": np.arange(4)})
    assert found["sum"].tolist() == [3, 4, 5, 6]
    assert found["sum"].dtype == np.float32
    assert found["rows"].tolist() == [4] * 4


def test_start_up_measures_every_batch_size_with_the_classes_own_sample(file: Path) -> None:
    """`sample` says what is measured; the profile has a point for every size."""
    runner = PythonRunner(f"{file}:Sampled", 8)
    about = runner.describe(lambda: 0.0, 1)
    assert list(about.profile_s) == [1, 2, 4, 8]
    assert about.max_rows == 8
    assert runner._model.sampled == 8


def test_without_a_batch_dimension_requests_run_alone(file: Path) -> None:
    """A shape that does not begin with -1 is one request's."""
    runner = PythonRunner(f"{file}:Alone", 8)
    assert runner.describe(lambda: 0.0, 1).max_rows == 1
    assert runner.run({"x": np.ones((2, 5))})["total"].tolist() == [10.0]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Nobody", "has no class Nobody"),
        ("function", "has no class function"),
        ("NoPorts", r"NoPorts.inputs must name the tensors"),
        ("BadPort", r"BadPort.inputs\['x'\] is 'FLOAT\[-1\]'; write a type and a shape"),
    ],
)
def test_what_cannot_be_served_is_named(file: Path, name: str, why: str) -> None:
    with pytest.raises(SpecError, match=why):
        PythonRunner(f"{file}:{name}", 8)


def test_an_output_that_was_not_returned_is_named(file: Path) -> None:
    with pytest.raises(ValueError, match="the model returned no 'y'"):
        PythonRunner(f"{file}:Lies", 8).run({"x": np.ones(2, np.float32)})


def test_a_reference_is_a_file_and_a_class(file: Path, tmp_path: Path) -> None:
    """Other models' names and folders are not taken for one."""
    assert [is_reference(text) for text in (f"{file}:Ranker", "a.py:B")] == [True, True]
    assert not any(map(is_reference, ("recommender@production", "name@3", str(file), "a.py:B.c", "a.py:")))
    assert locate(f"{file}:Ranker") == f"{file}:Ranker"
    with pytest.raises(SpecError, match="there is no file"):
        locate_model(f"{tmp_path}/none.py:Ranker", lambda: pytest.fail("the store was opened"))


def test_a_class_answers_over_http(file: Path, tmp_path: Path, client: httpx2.Client) -> None:
    """`tradewind serve file.py:Class` answers the protocol's requests, and says what the class raised."""
    with running(Path(f"{file}:Ranker"), tmp_path, "--slo", "5s") as server:
        about = client.get(f"{server.url}/v2/models/Ranker").json()
        assert [tensor["shape"] for tensor in about["inputs"]] == [[-1, 3], [-1]]
        assert infer(client, server.url, [1, 2]) == [7.0, 8.0]
        assert (
            infer(client, server.url, [-1, 2])
            == "the model failed on this input: ValueError: no negative bias"
        )


def infer(client: httpx2.Client, url: str, bias: list[int]) -> object:
    """The sums, or the error."""
    x = np.full((len(bias), 3), 2.0)
    inputs = [
        {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.tolist()},
        {"name": "bias", "datatype": "INT64", "shape": [len(bias)], "data": bias},
    ]
    answer = client.post(f"{url}/v2/models/Ranker/infer", json={"inputs": inputs}).json()
    return answer["outputs"][0]["data"] if "outputs" in answer else answer["error"]
