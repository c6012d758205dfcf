"""How Kafka is used: addresses, names, sizes and deadlines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_TOPIC = 249


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Everything about Kafka that can be set; times are in seconds.

    `partitions` and `replication_factor` count only for topics that the sidecar makes itself.
    `client` is passed to every client as it is: see `KafkaSecurity.client_options`.
    `call_s` is the deadline of every call, with a second more if it takes no notice of its end;
    `close_s` is that of closing one client. `stall_s` is how long a wait may be in vain before
    the client's progress is looked at; a member that was assigned nothing gets
    `unassigned_stalls` times as long. `held_most` bounds deliveries that were handed out and are
    not acknowledged.
    """

    bootstrap_servers: tuple[str, ...]
    prefix: str
    partitions: int
    replication_factor: int
    client: Mapping[str, Any] = field(default_factory=dict, repr=False)
    call_s: float = 5.0
    close_s: float = 1.5
    commit_every_s: float = 0.1
    stall_s: float = 5.0
    unassigned_stalls: int = 12
    held_most: int = 20_000
    session_s: float = 10.0
    heartbeat_s: float = 3.0
    poll_most_s: float = 60.0
    fetch_wait_s: float = 0.2
    partition_fetch_bytes: int = 64 * 1024

    def topic(self, namespace: str, service: str) -> str:
        """Return the topic of a service. Raises `ConfigError` if the names do not make one."""
        for name in (namespace, service):
            if not _NAME.fullmatch(name):
                raise ConfigError(f"{name!r} cannot be part of a Kafka topic's name")
        topic = f"{self.prefix}.{namespace}.{service}"
        if len(topic) > _LONGEST_TOPIC:
            raise ConfigError(f"{topic!r} is too long for a Kafka topic's name")
        return topic

    def client_options(self) -> dict[str, Any]:
        """Return the arguments that all clients share."""
        return {
            "bootstrap_servers": list(self.bootstrap_servers),
            "request_timeout_ms": int(self.call_s * 1000),
            "retry_backoff_ms": 100,
            "metadata_max_age_ms": 60_000,
            **self.client,
        }
