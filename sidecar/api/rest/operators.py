"""What a person can have done to a workflow that runs.

Every verb answers 202 with the workflow as it is then, and the same when it is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from aiohttp import web
from pydantic import BaseModel

from sidecar.api.rest import models, reading
from sidecar.api.rest.encoding import workflow_json
from sidecar.api.rest.face import FACE, reply
from sidecar.engine.verbs import Verbs
from sidecar.engine.views import WorkflowView

B = TypeVar("B", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class _Asked(Generic[B]):
    """One request for a verb, read and checked."""

    verbs: Verbs
    namespace: str
    workflow: str
    step: str
    actor: str
    body: B


async def _asked(request: web.Request, model: type[B]) -> _Asked[B]:
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request)
    return _Asked(
        face.verbs,
        namespace,
        request.match_info["id"],
        request.match_info.get("step", ""),
        reading.actor(request),
        await reading.json_request(request, model, may_be_empty=True),
    )


def _done(view: WorkflowView) -> web.Response:
    return reply(workflow_json(view), 202)


async def cancel(request: web.Request) -> web.Response:
    """Turn a workflow back."""
    it = await _asked(request, models.ReasonRequest)
    return _done(await it.verbs.cancel(it.namespace, it.workflow, it.body.reason, it.actor))


async def pause(request: web.Request) -> web.Response:
    """Let nothing more be called, until it is resumed."""
    it = await _asked(request, models.ReasonRequest)
    return _done(await it.verbs.pause(it.namespace, it.workflow, it.body.reason, it.actor))


async def resume(request: web.Request) -> web.Response:
    """Let a paused workflow go on."""
    it = await _asked(request, models.ReasonRequest)
    return _done(await it.verbs.resume(it.namespace, it.workflow, it.body.reason, it.actor))


async def terminate(request: web.Request) -> web.Response:
    """Stop a workflow where it stands; nothing is undone."""
    it = await _asked(request, models.TerminateRequest)
    return _done(await it.verbs.terminate(it.namespace, it.workflow, it.body.reason, it.actor))


async def retry(request: web.Request) -> web.Response:
    """Try now whatever waits for its next try or has failed for good: one step, or all."""
    it = await _asked(request, models.ReasonRequest)
    return _done(
        await it.verbs.retry(it.namespace, it.workflow, it.step or None, it.body.reason, it.actor)
    )


async def skip(request: web.Request) -> web.Response:
    """Go on without a step."""
    it = await _asked(request, models.SkipRequest)
    body = it.body
    return _done(
        await it.verbs.skip(
            it.namespace,
            it.workflow,
            it.step,
            body.reason,
            body.output,
            body.action,
            actor=it.actor,
        )
    )


async def resolve(request: web.Request) -> web.Response:
    """Settle a step by what a person found out."""
    it = await _asked(request, models.ResolveRequest)
    body = it.body
    return _done(
        await it.verbs.resolve(
            it.namespace,
            it.workflow,
            it.step,
            body.resolution,
            body.reason,
            body.evidence,
            body.output,
            actor=it.actor,
        )
    )


async def signal(request: web.Request) -> web.Response:
    """Send a signal."""
    it = await _asked(request, models.SignalRequest)
    name = request.match_info["name"]
    return _done(
        await it.verbs.signal(
            it.namespace, it.workflow, name, it.body.payload, it.body.reason, actor=it.actor
        )
    )
