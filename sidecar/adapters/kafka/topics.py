"""Making sure that topics exist."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from sidecar.adapters.kafka.driver import translated
from sidecar.adapters.kafka.settings import KafkaSettings
from sidecar.errors import QueueUnavailable

_log = structlog.get_logger("sidecar.kafka")


async def ensure_topics(settings: KafkaSettings, topics: Collection[str]) -> None:
    """Create those of `topics` that are missing. Raises `QueueUnavailable`.

    Where they exist already no right to create topics is needed.
    """
    with translated(f"looking for topics {sorted(topics)}"):
        async with asyncio.timeout(settings.call_s):
            admin = AIOKafkaAdminClient(**settings.client_options())
            try:
                await admin.start()
                missing = set(topics) - set(await admin.list_topics())
                if missing:
                    await _create(admin, settings, missing)
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
