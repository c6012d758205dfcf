"""Chance and ids: the system's, and a twin that a seed repeats exactly.

Workflow ids are UUIDs of version 7 (RFC 9562): 48 bits of Unix milliseconds, then 12 bits of
the fraction of that millisecond (section 6.2, method 3), then 62 bits of chance. Ids made by
one process only rise, even if its wall clock is set back.
"""

from __future__ import annotations

import random
import secrets
import time
import uuid
from collections.abc import Callable

from sidecar.ports.clock import Clock
from sidecar.saga.workflow import WorkflowId

_INCARNATION_BYTES = 8
_KEY_BYTES = 32
_NS_PER_MS = 1_000_000
_FRACTIONS_PER_MS = 4096
_FIRST_SEEDED_NS = 1_700_000_000_000 * _NS_PER_MS


class _RisingIds:
    """Makes UUIDs of version 7 that only rise."""

    def __init__(self, time_ns: Callable[[], int], bits: Callable[[int], int]) -> None:
        self._time_ns = time_ns
        self._bits = bits
        self._last = -1

    def next(self) -> WorkflowId:
        """Return an id greater than all before it."""
        moment = self._time_ns() * _FRACTIONS_PER_MS // _NS_PER_MS
        self._last = max(moment, self._last + 1)
        milliseconds, fraction = divmod(self._last, _FRACTIONS_PER_MS)
        number = (milliseconds & (1 << 48) - 1) << 80
        number |= 0x7 << 76 | fraction << 64 | 0b10 << 62 | self._bits(62)
        return WorkflowId(str(uuid.UUID(int=number)))


class SystemEntropy:
    """Chance from the operating system."""

    def __init__(self) -> None:
        self._ids = _RisingIds(time.time_ns, secrets.randbits)

    def workflow_id(self) -> WorkflowId:
        """Return a new UUID, version 7."""
        return self._ids.next()

    def incarnation(self) -> str:
        """Return a new random name for this process."""
        return secrets.token_hex(_INCARNATION_BYTES)

    def chance(self) -> float:
        """Return a number in [0, 1)."""
        return random.random()  # noqa: S311 - jitter, not a secret

    def key(self) -> bytes:
        """Return 32 bytes that nobody can guess."""
        return secrets.token_bytes(_KEY_BYTES)


class SeededEntropy:
    """The same seed gives the same answers, in the same order.

    With a `clock` its time stands in the ids, so that those of several sources sort by time;
    without one each source counts for itself.
    """

    def __init__(self, seed: int, clock: Clock | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._clock = clock
        self._ids = _RisingIds(self._time_ns, self._random.getrandbits)

    def workflow_id(self) -> WorkflowId:
        """Return a new UUID, version 7."""
        return self._ids.next()

    def incarnation(self) -> str:
        """Return a new random name for this process."""
        return f"{self._random.getrandbits(8 * _INCARNATION_BYTES):016x}"

    def chance(self) -> float:
        """Return a number in [0, 1)."""
        return self._random.random()

    def key(self) -> bytes:
        """Return 32 bytes that the seed repeats."""
        return self._random.randbytes(_KEY_BYTES)

    def _time_ns(self) -> int:
        if self._clock is None:
            return _FIRST_SEEDED_NS
        return int(self._clock.now().timestamp() * 1_000) * _NS_PER_MS
