"""Who a sidecar process is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """`incarnation` is random and good for one life of the process: never a host name."""

    namespace: str
    service: str
    incarnation: str
    host: str
    version: str
