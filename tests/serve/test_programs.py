"""The programs of a worker: compiled where that was found to be the same and faster, eager in every other case."""

import shutil
import subprocess

import pytest
import torch

from tests.services.compiled import WIDTH, Compiled
from tradewind.serve import programs as module
from tradewind.serve.programs import NOT_BUILT, REST, Programs
from tradewind.serve.runners import rehearse, runners_of
from tradewind.serve.wire import Execution

pytestmark = pytest.mark.timeout(600)  # the first that asks for it waits for the compiler


def loaded(compiled: Compiled, given=None, repeats: int = 3) -> tuple[Programs, dict]:
    """The programs of the small package, tried on its samples; and what runs them."""
    programs = Programs(compiled.package, compiled.artefacts, given)
    runners = runners_of(compiled.package, 8, 0, "exact", programs=programs)
    with torch.inference_mode():
        rehearse(runners, programs, repeats)
    return programs, runners


def whys(programs: Programs) -> dict[str, str]:
    return {name: how.why for name, how in programs.execution.items()}


@torch.inference_mode()
def test_what_is_compiled_is_tried_at_every_batch_size_and_answers(compiled_once):
    """Its outputs are eager's but for rounding."""
    programs, runners = loaded(compiled_once, ("score",))
    how = programs.execution["score"]
    assert (how.compiled, how.why) == (True, "")
    x = torch.randn(3, WIDTH)
    eager = compiled_once.package.program("score").run({"x": x})
    for name, value in runners["score"].run({"x": x}).items():
        torch.testing.assert_close(value, eager[name])
    assert whys(programs)["pool"] == "the worker that tried it did not choose it, or was lost"


def test_both_are_timed_where_nobody_has_yet(compiled_once):
    """At powers of two up to the largest batch; whichever is faster then answers."""
    programs, _ = loaded(compiled_once)
    how = programs.execution["score"]
    assert [t.rows for t in how.timings] == [1, 2, 4, 8]
    assert all(t.eager_s > 0 and t.compiled_s > 0 for t in how.timings)
    assert how.compiled == (not how.why)


def test_nothing_compiled_means_eager_and_says_what_to_do(compiled_once, tmp_path):
    """As where there is no compiler."""
    programs, runners = loaded(Compiled(compiled_once.package, tmp_path))
    assert programs.execution == dict.fromkeys(("pool", "score", "twin"), Execution(why=NOT_BUILT))
    assert runners["score"].run({"x": torch.zeros(2, WIDTH)})["scores"].shape == (2, 4)


def test_another_programs_code_is_not_loaded(compiled):
    """Its digest is not the one that was written down."""
    shutil.copyfile(compiled.library("twin"), compiled.library("score"))
    assert "not those that were compiled" in whys(loaded(compiled)[0])["score"]


@torch.inference_mode()
def test_another_programs_code_is_found_out_by_its_answers(compiled):
    """Where the manifest was forged as well: it has the same ports, and gives something else."""
    compiled.forge("score", compiled.library("twin").read_bytes())
    programs, runners = loaded(compiled)
    assert whys(programs)["score"].startswith("output 'scores' differs from eager's")
    x = torch.randn(3, WIDTH)
    assert torch.equal(runners["score"].run({"x": x})["scores"], compiled.package.program("score")(x)[0])


@pytest.mark.parametrize("library", [b"", b"not code"], ids=["empty", "no code"])
def test_what_cannot_be_loaded_is_not_used(compiled, library):
    """It says why."""
    compiled.forge("score", library)
    assert "program.so" in whys(loaded(compiled)[0])["score"]


def test_samples_that_eager_cannot_run_say_nothing_and_stop_nothing(compiled_once, monkeypatch):
    """What was not tried is not used; it is served."""
    programs = Programs(compiled_once.package, compiled_once.artefacts)
    runners = runners_of(compiled_once.package, 8, 0, "exact", programs=programs)

    def fails(tensors):
        raise ValueError("encode gave NaN or infinity\nand more")

    monkeypatch.setattr(runners["score"], "run", fails)
    rehearse(runners, programs, 1)
    assert whys(programs)["score"] == "its samples failed: encode gave NaN or infinity"
    assert "samples failed" not in whys(programs)["twin"]


def test_a_folder_that_others_may_write_is_not_used(compiled):
    """For none of its programs; they are served."""
    compiled.artefacts.folder.chmod(0o777)
    programs, _ = loaded(compiled)
    assert all("others may write" in why for why in whys(programs).values())


@torch.inference_mode()
def test_a_call_that_fails_is_eagers_to_answer_and_so_are_some_after_it(compiled_once, monkeypatch):
    """Its error is the one that the client sees; then compiled code is tried again."""
    programs, _ = loaded(compiled_once, ("pool",))
    pool = programs("pool")
    calls = []
    monkeypatch.setattr(type(pool.compiled), "__call__", counted(type(pool.compiled).__call__, calls))
    good = (torch.tensor([1, 2]), torch.tensor([0, 2]), torch.ones(1))
    with pytest.raises(IndexError, match="index out of range in self"):
        pool(torch.tensor([1, 77]), torch.tensor([0, 2]), torch.ones(1))
    assert len(calls) == 1
    for _ in range(REST):
        pool(*good)
    assert len(calls) == 1
    torch.testing.assert_close(pool(*good), pool.eager(*good))
    assert len(calls) == 2


def counted(call, calls):
    def run(self, inputs):
        calls.append(inputs)
        return call(self, inputs)

    return run


@torch.inference_mode()
def test_sizes_it_was_not_compiled_for_are_eagers(compiled_once, monkeypatch):
    """An empty batch, which it does not take."""
    programs, _ = loaded(compiled_once, ("score",))
    score = programs("score")
    monkeypatch.setattr(type(score.compiled), "__call__", counted(None, []))
    assert score(torch.zeros(0, WIDTH))[0].shape == (0, 4)


def test_each_program_is_loaded_once(compiled_once):
    """However many levels use it."""
    programs = Programs(compiled_once.package, compiled_once.artefacts)
    assert programs("score") is programs("score")
    assert module.Running is type(programs("score"))


def ends_the_process(folder) -> bytes:
    """A library that ends whoever loads it."""
    source, made = folder / "ends.cpp", folder / "ends.so"
    source.write_text("#include <cstdlib>\nstruct End { End() { std::abort(); } } end;\n")
    subprocess.run(["g++", "-shared", "-fPIC", "-o", made, source], check=True)
    return made.read_bytes()
