"""NVIDIA's four unmodified clients behind one face: the tests say what is asked once, and all four ask it."""

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.serve.conftest import Server

CLIENTS = ("http", "http.aio", "grpc", "grpc.aio")
Refused = InferenceServerException


class Client(NamedTuple):
    """One of the clients; `call` waits for what it returns."""

    kind: str
    module: Any
    inner: Any
    wait: Callable[[Any], Any]

    @property
    def over_http(self) -> bool:
        return self.kind.startswith("http")

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client by its name."""
        return self.wait(getattr(self.inner, method)(*args, **kwargs))

    def json(self, method: str, *args: Any) -> Any:
        """Call a method that tells something, and have it as JSON tells it."""
        return self.call(method, *args) if self.over_http else self.call(method, *args, as_json=True)

    def input(self, name: str, array: np.ndarray, binary: bool = True, dtype: str | None = None) -> Any:
        tensor = self.module.InferInput(name, list(array.shape), dtype or np_to_triton_dtype(array.dtype))
        if self.over_http:
            tensor.set_data_from_numpy(array, binary_data=binary)
        else:
            tensor.set_data_from_numpy(array)
        return tensor

    def output(self, name: str, binary: bool = True) -> Any:
        if self.over_http:
            return self.module.InferRequestedOutput(name, binary_data=binary)
        return self.module.InferRequestedOutput(name)

    def id_of(self, result: Any) -> str:
        response = result.get_response()
        return response["id"] if self.over_http else response.id


@contextlib.contextmanager
def connected(kind: str, server: Server, **options: Any) -> Iterator[Client]:
    """A client of a server until the block ends."""
    module = {"http": http, "http.aio": http_aio, "grpc": grpc, "grpc.aio": grpc_aio}[kind]
    url = server.address if kind.startswith("http") else server.grpc
    if not kind.endswith(".aio"):
        with module.InferenceServerClient(url, **options) as inner:
            yield Client(kind, module, inner, lambda value: value)
        return
    with asyncio.Runner() as runner:

        async def made() -> Any:
            return module.InferenceServerClient(url, **options)

        inner = runner.run(made())

        async def awaited(value: Any) -> Any:
            return await value

        def wait(value: Any) -> Any:
            return runner.run(awaited(value)) if inspect.isawaitable(value) else value

        try:
            yield Client(kind, module, inner, wait)
        finally:
            runner.run(inner.close())
