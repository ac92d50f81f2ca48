"""Every call of the protocol, by each of NVIDIA's unmodified clients, against a real server process."""

import pytest

from tests.serve.triton.clients import Refused

UNSUPPORTED = [
    ("load_model", ("fp32",), "loading and unloading"),
    ("unload_model", ("fp32",), "loading and unloading"),
    ("get_system_shared_memory_status", (), "shared memory"),
    ("get_system_shared_memory_status", ("region",), "shared memory"),
    ("register_system_shared_memory", ("region", "/key", 64), "shared memory"),
    ("unregister_system_shared_memory", ("region",), "shared memory"),
    ("unregister_system_shared_memory", (), "shared memory"),
    ("get_cuda_shared_memory_status", (), "shared memory"),
    ("register_cuda_shared_memory", ("region", b"aGFuZGxl", 0, 64), "shared memory"),
    ("unregister_cuda_shared_memory", ("region",), "shared memory"),
    ("get_trace_settings", (), "trace"),
    ("get_trace_settings", ("fp32",), "trace"),
    ("update_trace_settings", ("fp32", {"trace_level": ["OFF"]}), "trace"),
    ("get_log_settings", (), "log settings"),
    ("update_log_settings", ({"log_verbose_level": 1},), "log settings"),
]


def test_health(client):
    """Live, ready, and each model ready, with and without its version."""
    assert client.call("is_server_live")
    assert client.call("is_server_ready")
    assert client.call("is_model_ready", "fp32")
    assert client.call("is_model_ready", "fp32", "1")


def test_server_metadata(client):
    """The server's name and the extensions it has."""
    metadata = client.json("get_server_metadata")
    assert metadata["name"] == "tradewind"
    assert metadata["extensions"] == ["binary_tensor_data", "model_configuration", "statistics"]


@pytest.mark.parametrize("version", ["", "1"])
def test_model_metadata(client, version):
    """Name, versions, inputs and outputs with a dynamic batch dimension."""
    metadata = client.json("get_model_metadata", "int64", version)
    shape = [-1, 2] if client.over_http else ["-1", "2"]  # JSON made of protobuf writes int64 as text
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == (
        "int64",
        ["1"],
        "pytorch_tradewind",
    )
    assert metadata["inputs"] == [{"name": "x", "datatype": "INT64", "shape": shape}]
    assert metadata["outputs"] == [{"name": "y", "datatype": "INT64", "shape": shape}]


@pytest.mark.parametrize("version", ["", "1"])
def test_model_config(client, version):
    """How many rows a batch may have, and dimensions without the rows."""
    config = client.json("get_model_config", "int64", version)
    config = config if client.over_http else config["config"]
    dims = [2] if client.over_http else ["2"]
    assert (config["name"], config["max_batch_size"], config["backend"]) == ("int64", 64, "tradewind")
    assert config["input"] == [{"name": "x", "data_type": "TYPE_INT64", "dims": dims}]
    assert config["output"] == [{"name": "y", "data_type": "TYPE_INT64", "dims": dims}]


def test_statistics_of_one_model_and_of_all(client):
    """Counts are numbers, and there is one entry a model."""
    one = client.json("get_inference_statistics", "fp32")["model_stats"]
    every = client.json("get_inference_statistics")["model_stats"]
    assert [model["name"] for model in one] == ["fp32"]
    assert len(every) == 3
    assert set(one[0]["inference_stats"]) == {"success", "fail", "queue", "compute_infer"}


def test_repository_index(client):
    """Every model with its version, and that it is ready."""
    index = client.json("get_model_repository_index")
    index = index if client.over_http else index["models"]
    assert {model["name"] for model in index} == {"fp32", "int64", "every"}
    assert {(model["version"], model["state"]) for model in index} == {("1", "READY")}


@pytest.mark.parametrize("method", ["get_model_metadata", "get_model_config", "get_inference_statistics"])
@pytest.mark.parametrize(
    ("name", "version", "why"),
    [("nope", "", "unknown model 'nope'"), ("fp32", "7", "unknown version '7'")],
)
def test_what_is_not_there_is_named(client, method, name, version, why):
    """Not found, with what there is."""
    with pytest.raises(Refused, match=why) as caught:
        client.call(method, name, version)
    assert caught.value.status() == ("404" if client.over_http else "StatusCode.NOT_FOUND")


def test_a_model_that_is_not_there_is_not_ready(client):
    """The clients over HTTP say false, those over gRPC raise."""
    if client.over_http:
        assert not client.call("is_model_ready", "nope")
    else:
        with pytest.raises(Refused, match="unknown model 'nope'"):
            client.call("is_model_ready", "nope")


@pytest.mark.parametrize(("method", "arguments", "why"), UNSUPPORTED)
def test_what_is_outside_the_subset_is_said_to_be(client, method, arguments, why):
    """A clear "unsupported": 400 over HTTP, UNIMPLEMENTED over gRPC."""
    with pytest.raises(Refused, match="unsupported") as caught:
        client.call(method, *arguments)
    assert why in caught.value.message()
    assert caught.value.status() == ("400" if client.over_http else "StatusCode.UNIMPLEMENTED")
