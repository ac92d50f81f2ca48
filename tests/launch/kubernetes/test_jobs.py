"""What `ps` reads of the Jobs of all runs, and how little it asks the store when nothing has changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from tradewind.errors import ClusterError
from tradewind.launch.kubernetes.jobs import jobs_of
from tradewind.launch.kubernetes.status import observe, refreshed
from tradewind.store import Run, Store, open_store

PLACE = {
    "kind": "k8s",
    "on": "k8s",
    "cluster": "https://c",
    "namespace": "team",
    "gang": "native",
    "image": "i",
}
KEY = ("k8s", "https://c", "team")


class Answer:
    """A cluster that answers every request with the same bytes."""

    url = "https://c"

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def path(self, api_version: str, kind: str) -> str:
        return f"/apis/{api_version}/{kind}"

    def send(self, method: str, path: str, *, params: Any) -> bytes:
        return self.answer


class Counted:
    """A store whose reads of single runs are counted."""

    def __init__(self, store: Store) -> None:
        self._store, self.reads = store, 0

    def run(self, ref: str) -> Run:
        self.reads += 1
        return self._store.run(ref)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def job(name: str, **status: Any) -> dict[str, Any]:
    spec = {"suspend": False, "parallelism": 2, "template": {"spec": {"containers": [{"name": "host"}]}}}
    return {"metadata": {"name": name, "uid": "u", "labels": {}}, "spec": spec, "status": status}


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"active": 2},
        {
            "conditions": [
                {"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
            ]
        },
        {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]},
    ],
)
@pytest.mark.parametrize("suspend", [False, True])
def test_a_job_read_in_part_is_observed_like_a_whole_one(status: dict[str, Any], suspend: bool) -> None:
    """What is left out of a Job decides nothing."""
    whole = job("train", **status)
    whole["spec"]["suspend"] = suspend
    cluster: Any = Answer(json.dumps({"items": [whole]}).encode())
    (part,) = jobs_of(cluster)
    assert observe(part, []) == observe(whole, [])
    assert "template" not in part["spec"]


@pytest.mark.parametrize("answer", [b"<html>", b"{}", b'{"items": [{"metadata": {}}]}'])
def test_an_answer_that_is_no_list_of_jobs_says_where_it_came_from(answer: bytes) -> None:
    """A proxy's page is not a cluster without Jobs, which would end every run."""
    cluster: Any = Answer(answer)
    with pytest.raises(ClusterError, match=r"https://c: GET /apis/batch/v1/Job: its answer cannot be read"):
        jobs_of(cluster)


def test_an_empty_list_may_be_null() -> None:
    """As Go prints it."""
    cluster: Any = Answer(b'{"items": null}')
    assert jobs_of(cluster) == []


def test_runs_without_news_are_not_read_again(home: Path) -> None:
    """Of twenty runs that wait and one that ended, the store is asked for the one."""
    with open_store() as store:
        for number in range(21):
            spec = {"place": PLACE | {"job": f"job-{number}"}}
            store.add_run(Run(id=f"{number:012x}", name="train", created_s=float(number), spec=spec))
        runs = store.runs(300)
        jobs = {f"job-{number}": job(f"job-{number}", active=2) for number in range(20)}
        ended = {"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        jobs["job-20"] = job("job-20", conditions=[ended])
        counted: Any = Counted(store)
        states = [refreshed(run, {KEY: jobs}, {}, counted).state for run in runs]
        assert states == ["succeeded"] + ["pending"] * 20
        assert counted.reads == 1
        assert store.run(f"{20:012x}").state == "succeeded"
