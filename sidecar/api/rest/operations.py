"""All operations there are: routing and the OpenAPI document are both made from them."""

from __future__ import annotations

from pydantic import BaseModel

from sidecar.api.rest import models, oversight_models, oversight_routes, routes

ROUTES: tuple[routes.Route, ...] = (*routes.ROUTES, *oversight_routes.ROUTES)

ANSWERS: tuple[type[BaseModel], ...] = (*models.ANSWERS, *oversight_models.ANSWERS)
