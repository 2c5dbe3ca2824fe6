"""What the service offers, as an OpenAPI document made from the routes and their structs."""

import inspect
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Final

import msgspec

from forecart.serving.answers import Problem
from forecart.serving.asgi import Route

_REFERENCE: Final = "#/components/schemas/{name}"
_PROBLEMS: Final = {
    "400": "the body is not what it must be",
    "413": "the body is too large",
    "415": "the body is compressed",
    "503": "too many requests at once, or not ready",
}
_TOKEN_PROBLEMS: Final = {"401": "a token is needed", "403": "the token is for other things"}


def describe_routes(routes: Sequence[Route]) -> dict[str, Any]:
    """Returns the document."""
    types = [one for route in routes for one in (route.takes, route.gives) if one is not None]
    schemas, components = msgspec.json.schema_components([*types, Problem], ref_template=_REFERENCE)
    known = dict(zip([*types, Problem], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _describe(route, known)
    return {
        "openapi": "3.1.0",
        "info": {"title": "forecart", "version": metadata.version("forecart")},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _describe(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    problems = _PROBLEMS | (_TOKEN_PROBLEMS if route.scope else {}) if route.method == "POST" else {}
    gives = {"content": _content(schemas[route.gives])} if route.gives is not None else {}
    described: dict[str, Any] = {
        "summary": inspect.getdoc(route.handler),
        "responses": {
            "200": {"description": "the answer", **gives},
            **{
                status: {"description": text, "content": _content(schemas[Problem])}
                for status, text in problems.items()
            },
        },
    }
    if route.takes is not None:
        described["requestBody"] = {"required": True, "content": _content(schemas[route.takes])}
    if route.scope is not None:
        described["security"] = [{"token": []}]
        described["description"] = f"Needs a token for `{route.scope}`."
    return described


def _content(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
