"""The OpenAPI 3.1 document, made from the table of routes and the models."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from pydantic.json_schema import models_json_schema

from sidecar import __version__
from sidecar.api.rest import models
from sidecar.api.rest.definitions import MEDIA_TYPES
from sidecar.api.rest.events import STREAM
from sidecar.api.rest.operations import ANSWERS, ROUTES
from sidecar.api.rest.problems import CONTENT_TYPE
from sidecar.api.rest.reading import NAMESPACE_HEADER
from sidecar.api.rest.routes import Parameter, Route

Json = dict[str, Any]

_REF = "#/components/schemas/{model}"
_ALWAYS = (403, 421, 422, 500, 503)
"""Failures that any operation may meet."""

_PATH_PARAMETERS: dict[str, Json] = {
    "id": {"type": "string", "format": "uuid"},
    "job": {"type": "string", "format": "uuid"},
    "name": {"type": "string"},
    "step": {"type": "string", "examples": ["charge", "reserve[3]"]},
    "token": {"type": "string"},
    "version": {"type": "integer", "minimum": 1},
}


def document() -> Json:
    """Return the whole document."""
    paths: dict[str, Json] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    requests = dict.fromkeys(route.body for route in ROUTES if route.body is not None)
    _, schemas = models_json_schema(
        [(model, "validation") for model in (*requests, *ANSWERS)], ref_template=_REF
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "GoConductor",
            "version": __version__,
            "description": "Sagas across services: start, watch and undo workflows.",
        },
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }


def _operation(route: Route) -> Json:
    """One operation."""
    names = re.findall(r"\{(\w+)\}", route.path)
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": _PATH_PARAMETERS[name]}
        for name in names
    ]
    parameters += [_parameter(one) for one in (*route.query, *route.headers)]
    if route.path.startswith("/v1/"):
        parameters.append(
            {
                "name": NAMESPACE_HEADER,
                "in": "header",
                "description": "Left out: the namespace of the sidecar that is asked.",
                "schema": {"type": "string"},
            }
        )
    found: Json = {
        "operationId": route.operation,
        "summary": route.summary,
        "parameters": parameters,
        "responses": _responses(route),
    }
    if (body := _request_body(route)) is not None:
        found["requestBody"] = body
    return found


def _parameter(parameter: Parameter) -> Json:
    """One parameter of the query or one header."""
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _request_body(route: Route) -> Json | None:
    """What the request carries."""
    if route.body is not None:
        schema = _ref(route.body.__name__)
        demanded = any(one.is_required() for one in route.body.model_fields.values())
        return {"required": demanded, "content": {"application/json": {"schema": schema}}}
    if route.document:
        schema = {"type": "object"}
        return {
            "required": True,
            "content": {kind: {"schema": schema} for kind in sorted(MEDIA_TYPES)},
        }
    return None


def _responses(route: Route) -> Json:
    """What may come back, by status."""
    found: Json = {}
    for status, model in sorted(route.answers.items()):
        schema = _ref(model.__name__)
        if model is models.StartedBody:
            # With `wait` a start answers as reading the workflow does.
            schema = {"anyOf": [schema, _ref(models.WorkflowBody.__name__)]}
        content: Json = {"application/json": {"schema": schema}}
        if route.stream:
            content[STREAM] = {"schema": {"type": "string"}}
        found[str(status)] = {"description": HTTPStatus(status).phrase, "content": content}
    for status in sorted({*route.problems, *_ALWAYS}):
        found[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {CONTENT_TYPE: {"schema": _ref(models.Problem.__name__)}},
        }
    return found


def _ref(name: str) -> Json:
    """A reference to a schema."""
    return {"$ref": _REF.format(model=name)}
