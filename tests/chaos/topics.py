"""The doorbells' topics as a test holds them: read, rung by ourselves, played again, deleted.

Every call is one visit to the broker with a client of its own and ends within a deadline. What the
broker cannot answer yet is asked again; what it refuses is raised as the driver's error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, TypeVar

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code

from tests.chaos.definitions import SERVICES

_WITHIN_S = 30.0
_PAUSE_S = 0.1
_T = TypeVar("_T")


class Rung(NamedTuple):
    """One message where it stands."""

    partition: int
    offset: int
    value: bytes | None

    @property
    def names(self) -> tuple[str, str]:
        """The workflow and the step that it speaks of."""
        told = orjson.loads(self.value or b"{}")
        return told["w"], told["s"]


class Group(NamedTuple):
    """A consumer group, by the broker's word."""

    state: str
    members: int


class Topics:
    """The topics of one world's services. The group of a topic has the topic's name."""

    def __init__(self, bootstrap_servers: str, prefix: str) -> None:
        self._servers = bootstrap_servers
        self._prefix = prefix

    def name(self, service: str) -> str:
        """The topic of a service."""
        return f"{self._prefix}.default.{service}"

    def put(self, service: str, payloads: Iterable[bytes | None]) -> int:
        """Put these messages on a service's topic, in turn on its partitions; how many."""

        async def put() -> int:
            async with AIOKafkaProducer(bootstrap_servers=self._servers) as producer:
                partitions = sorted(await producer.partitions_for(self.name(service)))
                sent = [
                    await producer.send(
                        self.name(service), one, key=b"", partition=partitions[n % len(partitions)]
                    )
                    for n, one in enumerate(payloads)
                ]
                await asyncio.gather(*sent)
                return len(sent)

        return _visit(put)

    def rung(self, service: str) -> list[Rung]:
        """All messages that the topic holds."""

        async def read() -> list[Rung]:
            async with AIOKafkaConsumer(bootstrap_servers=self._servers) as reader:
                everything = await self._partitions(reader, service)
                reader.assign(everything)
                for one, begin in (await reader.beginning_offsets(everything)).items():
                    reader.seek(one, begin)
                ends = await reader.end_offsets(everything)
                found: list[Rung] = []
                for one in everything:
                    while await reader.position(one) < ends[one]:
                        batch = await reader.getmany(one, timeout_ms=500)
                        for records in batch.values():
                            found += [Rung(r.partition, r.offset, r.value) for r in records]
                return found

        return _visit(read)

    def committed(self, service: str) -> dict[int, int]:
        """How far the group has committed, by partition."""
        return {partition: at for partition, (at, _) in self._places(service).items()}

    def lag(self, service: str) -> int:
        """How many messages the group has not acknowledged."""
        return sum(end - at for at, end in self._places(service).values())

    def rewind(self, service: str) -> int:
        """Set the group, which must be empty, to the first message; how many it reads again."""

        async def rewind() -> int:
            async with self._member(service) as member:
                everything = await self._partitions(member, service)
                member.assign(everything)
                begins = await member.beginning_offsets(everything)
                await member.commit(begins)
                ends = await member.end_offsets(everything)
                return sum(ends[one] - begins[one] for one in everything)

        return _visit(rewind)

    def group(self, service: str) -> Group:
        """What the broker says of a service's group."""

        async def ask() -> Group:
            async with _Admin(self._servers) as admin:
                answers = await admin.describe_consumer_groups([self.name(service)])
                code, _, state, _, _, members, *_ = answers[0].groups[0]
                if code:
                    raise for_code(code)(self.name(service))
                return Group(state, len(members))

        return _visit(ask)

    def there(self) -> bool:
        """Whether the topics of all services exist."""

        async def ask() -> bool:
            async with _Admin(self._servers) as admin:
                return {*map(self.name, SERVICES)} <= {*await admin.list_topics()}

        return _visit(ask)

    def delete(self) -> None:
        """Delete the topics of all services, with all that they hold."""

        async def delete() -> None:
            async with _Admin(self._servers) as admin:
                answer = await admin.delete_topics([self.name(one) for one in SERVICES])
                for topic, code in answer.topic_error_codes:
                    if code:
                        raise for_code(code)(topic)

        _visit(delete)

    def _places(self, service: str) -> dict[int, tuple[int, int]]:
        async def ask() -> dict[int, tuple[int, int]]:
            async with self._member(service) as member:
                everything = await self._partitions(member, service)
                ends = await member.end_offsets(everything)
                begins = await member.beginning_offsets(everything)
                return {
                    one.partition: (await member.committed(one) or begins[one], ends[one])
                    for one in everything
                }

        return _visit(ask)

    def _member(self, service: str) -> AIOKafkaConsumer:
        """One that speaks for the group and never joins it."""
        return AIOKafkaConsumer(
            bootstrap_servers=self._servers, group_id=self.name(service), enable_auto_commit=False
        )

    async def _partitions(self, client: AIOKafkaConsumer, service: str) -> list[TopicPartition]:
        # Without a subscription the driver keeps no metadata of topics.
        cluster = await client._client.fetch_all_metadata()
        numbers = cluster.partitions_for_topic(self.name(service)) or ()
        return [TopicPartition(self.name(service), number) for number in sorted(numbers)]


def doorbell(workflow: str, step: str) -> bytes:
    """A doorbell as a sidecar rings it."""
    return orjson.dumps({"v": 1, "w": workflow, "s": step})


class _Admin:
    def __init__(self, servers: str) -> None:
        self._client = AIOKafkaAdminClient(bootstrap_servers=servers)

    async def __aenter__(self) -> AIOKafkaAdminClient:
        await self._client.start()
        return self._client

    async def __aexit__(self, *exc: object) -> None:
        await self._client.close()


def _visit(doing: Callable[[], Awaitable[_T]]) -> _T:
    """Do it under a deadline; what a broker will soon be able to answer is asked again."""

    async def bounded() -> _T:
        async with asyncio.timeout(_WITHIN_S):
            while True:
                try:
                    return await doing()
                except KafkaError as error:
                    if not error.retriable:
                        raise
                await asyncio.sleep(_PAUSE_S)

    return asyncio.run(bounded())
