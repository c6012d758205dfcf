"""Making sure that topics exist."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from sidecar.adapters.kafka.driver import apart, translated
from sidecar.adapters.kafka.settings import KafkaSettings
from sidecar.errors import QueueUnavailable

_LOOK_EVERY_S = 0.02

_log = structlog.get_logger("sidecar.kafka")


async def ensure_topics(settings: KafkaSettings, topics: Collection[str]) -> None:
    """Create those of `topics` that are missing; they can be used at once.

    Raises `QueueUnavailable`.
    Where they exist already no right to create topics is needed.
    """
    with translated(f"looking for topics {sorted(topics)}"):
        async with asyncio.timeout(settings.call_s):
            admin = AIOKafkaAdminClient(**settings.client_options())
            await apart(admin, _ensure(admin, settings, topics))


async def _ensure(
    admin: AIOKafkaAdminClient, settings: KafkaSettings, topics: Collection[str]
) -> None:
    try:
        await admin.start()
        missing = set(topics) - set(await admin.list_topics())
        if missing:
            await _create(admin, settings, missing)
            await _wait_until_known(admin, missing)
    finally:
        await admin.close()


async def _create(
    admin: AIOKafkaAdminClient, settings: KafkaSettings, topics: Collection[str]
) -> None:
    wanted = [NewTopic(topic, settings.partitions, settings.replication_factor) for topic in topics]
    answer = await admin.create_topics(wanted, timeout_ms=int(settings.call_s * 1000))
    for topic, code, *detail in answer.topic_errors:
        error = for_code(code)
        if error is TopicAlreadyExistsError:
            continue
        if error is not NoError:
            raise QueueUnavailable(f"Kafka did not create {topic}: {error.__name__} {detail}")
        _log.info("kafka_topic_created", topic=topic, partitions=settings.partitions)


async def _wait_until_known(admin: AIOKafkaAdminClient, topics: Collection[str]) -> None:
    """Return once the broker shows them with leaders.

    It answers that a topic is created a little before it shows it to clients. A consumer that
    asks in between is assigned nothing, and finds out only when it is asked about its progress.
    """
    while not all(map(_is_led, await admin.describe_topics(list(topics)))):  # noqa: ASYNC110  (the broker has no event for it)
        await asyncio.sleep(_LOOK_EVERY_S)


def _is_led(topic: Mapping[str, Any]) -> bool:
    partitions = topic["partitions"]
    return bool(partitions) and all(one["leader"] >= 0 for one in partitions)
