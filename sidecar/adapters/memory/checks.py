"""What a database could not keep is refused here just the same."""

from __future__ import annotations

import re

from sidecar.errors import StoreDataError
from sidecar.ports.store import Batch
from sidecar.saga.events import Answered

_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def check_batch(batch: Batch) -> None:
    """Raise `StoreDataError` if some member carries text that cannot be stored."""
    for start in batch.starts:
        check_text(start.input, start.start_key, start.trace)
        check_text(*start.labels, *start.labels.values())
    for transition in batch.transitions:
        event = transition.event
        if isinstance(event, Answered):
            check_text(event.outcome.output, event.outcome.error)
        said = (getattr(event, name) for name in event.__struct_fields__)
        check_text(*(text for text in said if isinstance(text, str)))


def check_text(*texts: str | None) -> None:
    """Raise `StoreDataError` for NUL, plain or escaped, and for lone surrogates."""
    for text in texts:
        if text is None:
            continue
        if "\x00" in text or _ESCAPED_NUL.search(text):
            raise StoreDataError("the character NUL cannot be stored")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise StoreDataError("text with lone surrogates cannot be stored") from error
