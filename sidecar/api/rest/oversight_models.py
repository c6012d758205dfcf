"""What requests and answers look like of what people oversee beyond the single workflow."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from sidecar.api.rest.models import Body, DefinitionLine


class VersionBody(DefinitionLine):
    """One version of a definition, and how many of its workflows have not ended."""

    open_workflows: int = Field(description="Counted up to 1000.")
    open_workflows_more: bool


class VersionPage(Body):
    """A page of the versions of a definition, newest first."""

    versions: list[VersionBody]
    next_cursor: str | None


class DeletedBody(Body):
    """A version that is gone; its number is never given again."""

    name: str
    version: int
    state: Literal["deleted"]


ANSWERS: tuple[type[BaseModel], ...] = (VersionPage, DeletedBody)
