"""How often an action may be called, as people write it: `{limit: 100, per: 1s}`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field, model_validator

from sidecar.definitions.calls import Part
from sidecar.definitions.durations import Between
from sidecar.saga.pacing import RateLimit


class RatePlan(Part):
    """At most so many calls in a span, over all replicas and workflows."""

    kind = "rate_limit"
    limit: Annotated[int, Field(ge=1, le=1_000_000)]
    """How many calls."""
    per: Annotated[timedelta, Between("1ms", "1d")]
    """In which span; after a rest the action may be called `limit` times at once."""

    @model_validator(mode="after")
    def _can_be_told_apart(self) -> RatePlan:
        if self.limit > self.per / timedelta(microseconds=1):
            raise ValueError("is more than a call per microsecond; lower limit or leave it out")
        return self

    @property
    def rate(self) -> RateLimit:
        """As the store counts it."""
        return RateLimit(self.limit, self.per)
