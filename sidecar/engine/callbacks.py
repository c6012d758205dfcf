"""Callbacks: a service that answered 202 finishes its attempt later, at any sidecar.

The URL in `GoConductor-Callback` carries a token that names one attempt, sealed by HMAC-SHA-256
(RFC 2104) with a key that all sidecars of the namespace share. So nothing has to be stored for
it: it is good while its attempt is, is safe to repeat, and is refused when it comes too late.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import struct
import uuid
from dataclasses import dataclass

from sidecar.errors import NotFound
from sidecar.saga.states import Action
from sidecar.saga.workflow import StepKey, WorkflowId

KEY_NAME = "callbacks"

_VERSION = 1
_HEAD = struct.Struct(">BB16siI")
_SEAL = 16
"""Bytes of the seal: more than anybody can try."""
_ACTIONS = (Action.EXECUTE, Action.COMPENSATE)
_TOKEN = re.compile(r"[A-Za-z0-9_-]{58,200}")
"""From a step with a name of one letter on."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at one action of one step."""

    workflow: WorkflowId
    key: StepKey
    action: Action
    attempt: int


class Tokens:
    """Makes and reads tokens with one `key`; `base_url` is where callbacks are taken."""

    def __init__(self, key: bytes, base_url: str) -> None:
        self._key = key
        self._prefix = f"{base_url.rstrip('/')}/v1/tasks/"

    def url(self, attempt: Attempt) -> str:
        """Return the URL that finishes an attempt, but for the verb."""
        return self._prefix + self.token(attempt)

    def token(self, attempt: Attempt) -> str:
        """Return the token of an attempt."""
        head = _HEAD.pack(
            _VERSION,
            _ACTIONS.index(attempt.action),
            bytes.fromhex(attempt.workflow.replace("-", "")),
            attempt.key.index,
            attempt.attempt,
        )
        said = head + attempt.key.step.encode()
        return _written(self._seal(said) + said)

    def read(self, token: str) -> Attempt:
        """Return the attempt that a token names. Raises `NotFound` for what is no token of ours."""
        found = self._opened(token)
        if found is None:
            raise NotFound("There is no such task: the token is not one of ours.")
        return found

    def _opened(self, token: str) -> Attempt | None:
        if _TOKEN.fullmatch(token) is None:
            return None
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except binascii.Error:
            return None
        said = raw[_SEAL:]
        if not hmac.compare_digest(raw[:_SEAL], self._seal(said)) or said[0] != _VERSION:
            return None
        if _written(raw) != token:  # the last letter has bits that stand for nothing
            return None
        # From here on it is what we wrote.
        _, action, workflow, index, attempt = _HEAD.unpack_from(said)
        known = WorkflowId(str(uuid.UUID(bytes=workflow)))
        key = StepKey(said[_HEAD.size :].decode(), index)
        return Attempt(known, key, _ACTIONS[action], attempt)

    def _seal(self, said: bytes) -> bytes:
        return hmac.digest(self._key, said, hashlib.sha256)[:_SEAL]


def _written(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
