"""Every exception GoConductor raises on purpose, in one tree.

    GoConductorError
        ConfigError
            MissingExtra
        DefinitionError
        IllegalTransition
        IncompleteState
        RenderError
        RequestError
            InvalidRequest
            NotFound
            Conflict
            StartKeyReused
            Overloaded
        StoreError
            StoreUnavailable
            StoreConflict
            StoreDataError
            StaleEpoch
            SchemaMismatch
        QueueError
            QueueUnavailable
            UndecodableDoorbell
        ElectionError
            ElectionUnavailable
        EmbeddedServerError
        ServiceUnreachable

Each class says with `retry` whether the same operation may succeed when tried again
unchanged, and with `code` the stable word that faces and metrics show. The docstring of a
class is its default message. Drivers' own exceptions are translated into these at the
adapter's edge and never cross it.
"""

from __future__ import annotations

from typing import ClassVar


class GoConductorError(Exception):
    """Something went wrong in GoConductor."""

    retry: ClassVar[bool] = False
    code: ClassVar[str] = "internal"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())

    @property
    def message(self) -> str:
        """The text for people, without the class name."""
        return str(self.args[0])


class ConfigError(GoConductorError):
    """The configuration is not usable; the message names the key and the fix."""

    code = "bad_config"


class MissingExtra(ConfigError):
    """A chosen backend needs a package that is not installed."""

    code = "missing_extra"

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(
            f"{package} is not installed; run: pip install 'goconductor[{extra}]'",
        )


class DefinitionError(GoConductorError):
    """The workflow definition is not valid.

    `problems` holds one `(path, message)` for each fault found, the path written like
    `steps[2].after[0]`.
    """

    code = "bad_definition"

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        lines = [f"{path or 'document'}: {text}" for path, text in problems]
        super().__init__("; ".join(lines) or None)


class IllegalTransition(GoConductorError):
    """This event is not legal in the present state; nothing was changed."""

    code = "illegal_transition"

    def __init__(self, subject: str, state: str, event: str) -> None:
        self.subject, self.state, self.event = subject, state, event
        super().__init__(f"{subject} is {state}: {event} is not legal now")


class IncompleteState(GoConductorError):
    """A transition needs more of its workflow's state than was read; read it whole."""

    code = "incomplete_state"


class RenderError(GoConductorError):
    """An input could not be rendered from the workflow's state."""

    code = "render_failed"


class RequestError(GoConductorError):
    """A request cannot be served; `field` names what is at fault, if one field is."""

    code = "bad_request"

    def __init__(self, message: str | None = None, *, field: str | None = None) -> None:
        self.field = field
        super().__init__(message)


class InvalidRequest(RequestError):
    """The request is not well formed."""

    code = "invalid_request"


class NotFound(RequestError):
    """There is no such thing in this namespace."""

    code = "not_found"


class Conflict(RequestError):
    """The request is not legal in the present state."""

    code = "conflict"


class StartKeyReused(RequestError):
    """The start key was used before with another input."""

    code = "start_key_reused"


class Overloaded(RequestError):
    """Too much is waiting already; try again later."""

    retry = True
    code = "overloaded"


class StoreError(GoConductorError):
    """The store could not do what was asked."""

    code = "store"


class StoreUnavailable(StoreError):
    """The store cannot be reached, or the connection was lost.

    Whether a commit that was under way took effect is unknown: whoever retries must be
    prepared to find that it did.
    """

    retry = True
    code = "store_unavailable"


class StoreConflict(StoreError):
    """The transaction met a serialization failure or a deadlock; nothing was written."""

    retry = True
    code = "store_conflict"


class StoreDataError(StoreError):
    """The store refuses the data of some member of the batch; nothing was written."""

    code = "store_data"


class StaleEpoch(StoreError):
    """A newer leader exists; this leader's write was refused."""

    code = "stale_epoch"


class SchemaMismatch(StoreError):
    """The database schema is older or newer than this program; run `goconductor migrate`."""

    code = "schema_mismatch"


class QueueError(GoConductorError):
    """The queue could not do what was asked."""

    code = "queue"


class QueueUnavailable(QueueError):
    """The queue cannot be reached, or did not answer in time."""

    retry = True
    code = "queue_unavailable"


class UndecodableDoorbell(QueueError):
    """A message on a doorbell topic is not a doorbell this program can read."""

    code = "undecodable_doorbell"


class ElectionError(GoConductorError):
    """The election could not do what was asked."""

    code = "election"


class ElectionUnavailable(ElectionError):
    """The election backend cannot be reached."""

    retry = True
    code = "election_unavailable"


class EmbeddedServerError(GoConductorError):
    """The embedded PostgreSQL server could not be run."""

    code = "embedded_server"


class ServiceUnreachable(GoConductorError):
    """The service cannot be reached."""

    retry = True
    code = "service_unreachable"
