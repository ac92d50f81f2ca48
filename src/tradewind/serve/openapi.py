"""The OpenAPI description of a replica's routes, made from the structs that parse them."""

from collections.abc import Sequence
from typing import Any

import msgspec

import tradewind
from tradewind import names
from tradewind.retrieve import Filter
from tradewind.serve.features import Outcome
from tradewind.serve.protocols import about, recommend, v2

REF = "#/components/schemas/{name}"
JSON = "application/json"
BINARY = "application/octet-stream"
Schema = dict[str, Any]

REFUSALS = {
    "400": "The request is malformed; `error` says what and where.",
    "404": "There is no such model or version.",
    "408": "The body did not arrive in time.",
    "413": "The request is larger than this server takes.",
    "415": "The body's content encoding is not supported.",
    "422": "The model itself failed on this input.",
    "429": "It could not be answered inside its deadline; `Retry-After` says when to try again.",
    "503": "No model worker is loaded.",
}


def describe(models: Sequence[str], version: str, recommends: bool) -> Schema:
    """Return the OpenAPI 3.1 document of a server with these models."""
    types = [
        v2.InferRequest,
        v2.InferResponse,
        v2.ModelMetadata,
        v2.ServerMetadata,
        v2.Live,
        v2.Ready,
        v2.Failure,
        about.ModelConfig,
        about.Statistics,
        about.IndexedModel,
    ]
    if recommends:
        types += [recommend.RecommendRequest, recommend.RecommendResponse]
    components = _components(types)
    if recommends:
        components |= _request(components)
    paths: Schema = {
        "/v2/health/live": _get("live", "Is the server process alive?", "Live"),
        "/v2/health/ready": _get("ready", "Can the server answer requests?", "Ready", ["503"]),
        "/v2": _get("serverMetadata", "Name, version and extensions of the server.", "ServerMetadata"),
        "/metrics": _plain("metrics", "Prometheus metrics.", "text/plain; version=0.0.4; charset=utf-8"),
        "/v2/models/stats": _get("allStatistics", "Statistics of every model.", "Statistics"),
        "/v2/repository/index": {"post": _index()},
        "/openapi.json": _plain("openapi", "This document.", JSON),
    }
    for path, suffix in (("/v2/models/{model}", ""), ("/v2/models/{model}/versions/{version}", "Version")):
        paths |= _model_paths(path, suffix, models, version)
    if recommends:
        paths["/v1/recommend"] = {"post": _recommend()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tradewind endpoint", "version": tradewind.__version__},
        "paths": paths,
        "components": {"schemas": components},
    }


def _components(types: Sequence[Any]) -> Schema:
    return msgspec.json.schema_components(types, ref_template=REF)[1]


def _request(components: Schema) -> Schema:
    """Return the request with what its struct cannot say, and what that refers to.

    A filter's schema, as the body is read in two steps, and that it needs a history or a user.
    """
    (anyone,), nodes = msgspec.json.schema_components([Filter], ref_template=REF)
    request = components["RecommendRequest"]
    properties = request["properties"] | {"filter": {"anyOf": [_ref("Filter"), {"type": "null"}]}}
    needed = {"anyOf": [{"required": ["history"]}, {"required": ["user_id"]}]}
    return nodes | {"Filter": anyone, "RecommendRequest": request | {"properties": properties} | needed}


def _model_paths(path: str, suffix: str, models: Sequence[str], version: str) -> Schema:
    parameters = [_parameter("model", "path", {"type": "string", "enum": list(models)})]
    if suffix:
        parameters.append(_parameter("version", "path", {"type": "string", "enum": [version]}))
    operations = {
        path: _get(f"model{suffix}Metadata", "Inputs and outputs of a model.", "ModelMetadata", ["404"]),
        path + "/ready": _get(f"model{suffix}Ready", "Can this model answer?", "Ready", ["404", "503"]),
        path + "/config": _get(f"model{suffix}Config", "How a model is served.", "ModelConfig", ["404"]),
        path + "/stats": _get(f"model{suffix}Statistics", "Statistics of a model.", "Statistics", ["404"]),
        path + "/infer": {"post": _infer(f"model{suffix}Infer")},
    }
    return {p: operation | {"parameters": parameters} for p, operation in operations.items()}


def _infer(operation: str) -> Schema:
    binary = {BINARY: {"schema": {"type": "string", "format": "binary"}}}
    header = {
        v2.HEADER_LENGTH: {"schema": {"type": "integer"}, "description": "Bytes of JSON before the tensors."}
    }
    return {
        "operationId": operation,
        "summary": "Run a model on tensors, as JSON or with the binary tensor data extension.",
        "parameters": _request_headers(),
        "requestBody": {"required": True, "content": {JSON: {"schema": _ref("InferRequest")}}},
        "responses": {
            "200": {
                "description": "The outputs.",
                "headers": header,
                "content": {JSON: {"schema": _ref("InferResponse")}, **binary},
            },
            **_failures(REFUSALS),
        },
    }


def _recommend() -> Schema:
    outcome = {
        "schema": {"type": "string", "enum": [str(outcome) for outcome in Outcome]},
        "description": "What came of fetching what is stored of `user_id`; absent without it.",
    }
    return {
        "operationId": "recommend",
        "summary": "Recommend items to a user with this history.",
        "parameters": _request_headers(),
        "requestBody": {"required": True, "content": {JSON: {"schema": _ref("RecommendRequest")}}},
        "responses": {
            "200": {
                "description": "Items, best first.",
                "headers": {names.HEADER_FEATURES: outcome},
                "content": {JSON: {"schema": _ref("RecommendResponse")}},
            },
            **_failures({code: why for code, why in REFUSALS.items() if code != "404"}),
        },
    }


def _index() -> Schema:
    schema = {"type": "array", "items": _ref("IndexedModel")}
    ok = {"description": "Name, version and state of each.", "content": {JSON: {"schema": schema}}}
    return {"operationId": "index", "summary": "Which models there are.", "responses": {"200": ok}}


def _get(operation: str, summary: str, schema: str, failures: Sequence[str] = ()) -> Schema:
    ok = {"description": "Yes.", "content": {JSON: {"schema": _ref(schema)}}}
    responses = {"200": ok, **_failures({code: REFUSALS[code] for code in failures})}
    return {"get": {"operationId": operation, "summary": summary, "responses": responses}}


def _plain(operation: str, summary: str, media_type: str) -> Schema:
    ok = {"description": summary, "content": {media_type: {}}}
    return {"get": {"operationId": operation, "summary": summary, "responses": {"200": ok}}}


def _failures(why: dict[str, str]) -> Schema:
    content = {JSON: {"schema": _ref("Failure")}}
    return {code: {"description": text, "content": content} for code, text in why.items()}


def _request_headers() -> list[Schema]:
    deadline = _parameter(names.HEADER_DEADLINE, "header", {"type": "number", "exclusiveMinimum": 0}, False)
    texts = (names.HEADER_REQUEST_ID, names.HEADER_PRIORITY, names.HEADER_TENANT, names.HEADER_MIN_LEVEL)
    return [deadline, *(_parameter(name, "header", {"type": "string"}, False) for name in texts)]


def _parameter(name: str, where: str, schema: Schema, required: bool = True) -> Schema:
    return {"name": name, "in": where, "required": required, "schema": schema}


def _ref(name: str) -> Schema:
    return {"$ref": REF.format(name=name)}
