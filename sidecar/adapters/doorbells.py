"""How a doorbell is written on a queue: compact, versioned JSON, the same for every broker.

    {"v":1,"w":"<workflow id>","s":"<step>","i":<index>,"t":"<traceparent>"}

`i` is left out for a step that is no item of a fan-out, `t` when there is no trace. The
service is not in the message: it is the destination. Unknown keys are ignored, so that a
newer sidecar may add some; a message of another version is refused.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from sidecar.errors import UndecodableDoorbell
from sidecar.ports.queue import Delivery, Doorbell, Refused
from sidecar.saga.workflow import NO_INDEX, StepKey, WorkflowId

VERSION = 1
MAX_BYTES = 2048
SAMPLE_BYTES = 200

_MAX_INDEX = 2**31 - 1
_MAX_TRACE = 256
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_STEP = re.compile(r"[a-z][a-z0-9_]{0,254}\Z")


def encode(doorbell: Doorbell) -> bytes:
    """Return the message that stands for `doorbell`."""
    message: dict[str, Any] = {"v": VERSION, "w": doorbell.workflow, "s": doorbell.key.step}
    if doorbell.key.index != NO_INDEX:
        message["i"] = doorbell.key.index
    if doorbell.trace is not None:
        message["t"] = doorbell.trace
    return orjson.dumps(message)


def decode(payload: bytes, service: str) -> Doorbell:
    """Return the doorbell that `payload` stands for, as received on the queue of `service`.

    Raises `UndecodableDoorbell` with the reason.
    """
    if len(payload) > MAX_BYTES:
        raise UndecodableDoorbell(f"{len(payload)} bytes are more than {MAX_BYTES}")
    try:
        message = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise UndecodableDoorbell(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise UndecodableDoorbell("not a JSON object")
    version = message.get("v")
    if version != VERSION or isinstance(version, bool):
        raise UndecodableDoorbell(f"version {version!r:.40} is unknown")
    return Doorbell(
        workflow=WorkflowId(_text(message, "w", _UUID)),
        key=StepKey(_text(message, "s", _STEP), _index(message)),
        service=service,
        trace=_trace(message),
    )


def read(payload: bytes | None, service: str, token: Any = None) -> Delivery | Refused:
    """Return the delivery that a message is, or why it is none."""
    content = payload or b""
    try:
        return Delivery(decode(content, service), token)
    except UndecodableDoorbell as error:
        return Refused(error.message, content[:SAMPLE_BYTES], token)


def _text(message: dict[str, Any], name: str, form: re.Pattern[str]) -> str:
    value = message.get(name)
    if not isinstance(value, str) or form.match(value) is None:
        raise UndecodableDoorbell(f"{name!r} is {value!r:.80}")
    return value


def _index(message: dict[str, Any]) -> int:
    value = message.get("i", NO_INDEX)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number or not NO_INDEX <= value <= _MAX_INDEX:
        raise UndecodableDoorbell(f"'i' is {value!r:.80}")
    return int(value)


def _trace(message: dict[str, Any]) -> str | None:
    """A bad trace context costs a trace, never a doorbell."""
    value = message.get("t")
    return value if isinstance(value, str) and len(value) <= _MAX_TRACE else None
