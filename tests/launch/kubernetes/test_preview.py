"""What is shown without a cluster: the plan of a dry run, and manifests for GitOps."""

from pathlib import Path

import pytest
import yaml

from tests.launch.conftest import write
from tests.launch.kubernetes import golden
from tradewind.errors import SpecError
from tradewind.launch.kubernetes.preview import preview, rendered, to_yaml
from tradewind.launch.kubernetes.targets import TARGETS
from tradewind.spec import Placement, Resources, RunSpec

SPEC = RunSpec(script="train.py", hosts=2, workers=4, placement=Placement(image="train:1"))


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_printed_is_what_was_reviewed(target: str) -> None:
    """A change of any manifest shows as a change of its golden file: python -m tests.launch.kubernetes.golden."""
    assert golden.text(target) == (golden.FOLDER / f"{target}.yaml").read_text()


def test_the_same_project_renders_the_same_anywhere(
    root: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another folder and another home give the same bytes, so that GitOps sees no change; an edit gives another id."""
    texts = []
    for folder in (root, tmp_path / "copy"):
        write(folder, {"train.py": "print(1)", "lib.py": "x = 1"})
        monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / f"home-{folder.name}"))
        texts.append(to_yaml(rendered(SPEC, "k8s", "k8s", cwd=folder)))
    assert texts[0] == texts[1]
    write(root, {"lib.py": "x = 2"})
    edited = rendered(SPEC, "k8s", "k8s", cwd=root)
    names = {o["kind"]: o["metadata"]["name"] for o in yaml.safe_load_all(texts[0])}
    assert edited[-1]["metadata"]["name"] != names["Job"]
    assert "Secret" not in names


def test_yaml_reads_back(root: Path, home: Path) -> None:
    """What is printed parses to the same objects, the program and odd texts included."""
    write(root, {"train.py": "print(1)"})
    spec = RunSpec(
        script="train.py", args=("no", "1e3", "a: b", " x\n\ty "), placement=Placement(image="i:1")
    )
    objects = rendered(spec, "k8s", "k8s", cwd=root)
    assert list(yaml.safe_load_all(to_yaml(objects))) == objects


@pytest.mark.parametrize(
    "text", ["123456789e12", "012345678901", "1_000", "0x1f", "1:30", ".5", "y", "N", "no"]
)
def test_texts_stay_texts_for_every_reader(text: str) -> None:
    """Ids and labels that look like numbers or truth values to Go's YAML readers are quoted."""
    assert to_yaml([{"label": text}]) == f"---\nlabel: '{text}'\n"


def test_a_dry_run_says_what_would_be_asked_for(root: Path, home: Path) -> None:
    """Hosts, their resources, the gang, the objects and what is worth knowing; nothing is written."""
    write(root, {"train.py": "print(1)"})
    spec = RunSpec(
        script="train.py",
        hosts=2,
        workers=4,
        resources=Resources(gpus=2, memory_gib=4),
        placement=Placement(image="train:1"),
    )
    found = preview(spec, "k8s", root)
    assert (found.hosts, found.workers, found.gang, found.shared_memory) == (2, 4, "barrier", "4096Mi")
    assert found.host == {"memory": "8192Mi", "nvidia.com/gpu": "4"}
    assert found.objects == ("ConfigMap", "Service", "Job")
    assert [note.split(":")[0].split(" ")[0] for note in found.notes] == ["checkpoints", "the", "without"]
    assert not home.exists()


def test_unknown_places_and_targets_name_the_known(root: Path, home: Path) -> None:
    """A context without a file, a place that is none, a target that is none, a misspelt field: each says what helps."""
    write(root, {"train.py": ""})
    (home / "contexts").mkdir(parents=True)
    (home / "contexts/prod.yaml").write_text("placement: {imge: x}\n")
    cases = [
        ("k8s:pord", "there is no .*pord.yaml; write it, or use one of: prod"),
        ("kubernetes", "there is no such place; write k8s, or k8s:NAME"),
        ("k8s:../prod", "there is no such place"),
        ("k8s:prod", r"prod\.yaml:1: placement\.imge: unknown field; did you mean `image`"),
    ]
    for on, problem in cases:
        with pytest.raises(SpecError, match=problem):
            preview(SPEC, on, root)
    with pytest.raises(SpecError, match="use one of k8s, jobset, trainjob, rayjob"):
        rendered(SPEC, "helm", "k8s", cwd=root)
