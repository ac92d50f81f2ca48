"""Ray's job API over HTTP: what a submit needs of Ray, without Ray."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from tradewind.errors import ClusterError

TIMEOUT_S = 30.0


class JobApi:
    """One Ray cluster, as its dashboard answers. Every method raises ClusterError when it cannot be asked."""

    def __init__(self, url: str) -> None:
        import httpx2

        self.url = url
        token = read_token(os.environ)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx2.Client(base_url=url, timeout=TIMEOUT_S, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def upload(self, name: str, data: bytes) -> str:
        """Have the cluster keep a package under this name, if it does not yet; return the package's URI."""
        path = f"/api/packages/gcs/{name}"
        if self._call("GET", path, absent_ok=True) is None:
            self._call("PUT", path, content=data)
        return f"gcs://{name}"

    def submit(self, body: dict[str, Any]) -> None:
        """Start a job."""
        self._call("POST", "/api/jobs/", content=msgspec.json.encode(body))

    def job(self, submission: str) -> dict[str, Any] | None:
        """What the cluster says of a job; None when it does not know it."""
        answer = self._call("GET", f"/api/jobs/{submission}", absent_ok=True)
        return None if answer is None else msgspec.json.decode(answer, type=dict[str, Any])

    def logs(self, submission: str) -> str:
        """All that the job's driver has printed so far."""
        answer = self._call("GET", f"/api/jobs/{submission}/logs", absent_ok=True)
        return "" if answer is None else str(msgspec.json.decode(answer, type=dict[str, Any])["logs"] or "")

    def stop(self, submission: str) -> None:
        """Ask a job to end; it is killed once its grace is over."""
        self._call("POST", f"/api/jobs/{submission}/stop")

    def _call(
        self, method: str, path: str, content: bytes | None = None, absent_ok: bool = False
    ) -> bytes | None:
        import httpx2

        try:
            answer = self._http.request(method, path, content=content)
        except httpx2.TransportError as error:
            raise ClusterError(
                f"{self.url}: Ray's job API does not answer: {error}; is the cluster up, and this its dashboard?"
            ) from error
        if answer.status_code == 404 and absent_ok:
            return None
        if answer.status_code in (401, 403):
            raise ClusterError(
                f"{self.url}: Ray refuses its token; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's"
            )
        if answer.status_code >= 400:
            said = answer.text.strip().splitlines()
            raise ClusterError(
                f"{self.url}: {method} {path} was refused with {answer.status_code}: {said[-1] if said else ''}"
            )
        return bytes(answer.content)


def read_token(env: Mapping[str, str]) -> str:
    """The token of Ray's own authentication, from where Ray's own client takes it; nothing when there is none."""
    if env.get("RAY_AUTH_TOKEN"):
        return env["RAY_AUTH_TOKEN"].strip()
    path = Path(env.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
