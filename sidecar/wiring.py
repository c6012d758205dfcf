"""Wiring: the only place that knows every adapter.

A backend is imported where the configuration chooses it, so that an extra that is not chosen
need not be installed; a missing package becomes an error that names the extra.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import structlog
from pydantic import SecretStr

from sidecar import __version__
from sidecar.adapters import logs
from sidecar.adapters.clock import SystemClock
from sidecar.adapters.entropy import SystemEntropy
from sidecar.adapters.telemetry.prometheus import PrometheusTelemetry
from sidecar.api.health import build_health_app
from sidecar.api.rest.app import build_app
from sidecar.api.rest.hosts import Hosts
from sidecar.api.rest.server import RestServer
from sidecar.config import SidecarConfig
from sidecar.config import model as config_model
from sidecar.definitions import compile_stored, render
from sidecar.engine.agent import Agent, Ports, Settings
from sidecar.engine.duties import DutyTimes
from sidecar.engine.identity import Identity
from sidecar.engine.receiving import LookInterval
from sidecar.errors import ConfigError, GoConductorError, MissingExtra
from sidecar.ports.election import Election
from sidecar.ports.notices import Notices
from sidecar.ports.queue import Queue
from sidecar.ports.store import Store

if TYPE_CHECKING:
    from sidecar.adapters.kafka.settings import KafkaSettings

log = structlog.get_logger("sidecar")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_sidecar(config: SidecarConfig) -> int:
    """Run a sidecar until it is told to stop; return the exit code."""
    json = config.log.format == "json" or (config.log.format == "auto" and not sys.stderr.isatty())
    logs.configure(json=json, level=config.log.level)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(config))
        except GoConductorError as error:
            # Expected faults are told in one line; a trace would hide what to do.
            log.error("cannot_run", error=error.message, code=error.code)  # noqa: TRY400
            return 1
    return 0


def migrate_store(where: SidecarConfig | str) -> None:
    """Bring the schema of a store up to date. Raises `StoreError`, `ConfigError`."""
    asyncio.run(_migrate(where))


async def _migrate(where: SidecarConfig | str) -> None:
    from sidecar.adapters.postgres.migrate import migrate

    if isinstance(where, str):
        await migrate(where)
        return
    async with AsyncExitStack() as stack:
        await migrate(await _dsn(where, stack), where.store.schema_name)


async def _dsn(config: SidecarConfig, stack: AsyncExitStack) -> str:
    """Return where PostgreSQL is, starting the embedded one if that is what was chosen."""
    if config.store.dsn is not None:
        return config.store.dsn.get_secret_value()
    if config.store.embedded is None:
        raise ConfigError("store: neither dsn nor embedded is given")
    return await stack.enter_async_context(embedded_server(config.store.embedded))


@asynccontextmanager
async def embedded_server(folder: Path) -> AsyncIterator[str]:
    """Run the PostgreSQL of a folder, or join the one that runs; yields its DSN."""
    from sidecar.adapters.postgres.embedded import EmbeddedServer

    server = EmbeddedServer(folder)
    try:
        yield await server.open()
    finally:
        await server.close()


async def _serve(config: SidecarConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in STOP_SIGNALS:
        loop.add_signal_handler(one, stop.set)
    async with AsyncExitStack() as stack:
        dsn = await _dsn(config, stack)
        agent, telemetry = await build_agent(config, dsn)
        stack.push_async_callback(agent.stop)
        await agent.start()
        names = config.listen.hosts
        app = build_app(
            agent.commands,
            agent.queries,
            agent.waiting,
            namespace=config.namespace,
            hosts=None if names is None else Hosts(names),
        )
        faces = (
            (RestServer(app), config.listen.http),
            (RestServer(build_health_app(agent, telemetry.render)), config.listen.metrics),
        )
        for server, address in faces:
            try:
                where = await server.open(address.host, address.port)
            except OSError as error:
                raise ConfigError(
                    f"listen: cannot listen on {address.host}:{address.port}: {error.strerror}"
                ) from error
            stack.push_async_callback(server.close)
            log.info("listening", address=f"{where[0]}:{where[1]}")
        stack.push_async_callback(agent.waiting.close)
        await stop.wait()
        log.info("told_to_stop")
        await agent.drain()


async def build_agent(config: SidecarConfig, dsn: str) -> tuple[Agent, PrometheusTelemetry]:
    """Return a sidecar that is ready to be started."""
    from sidecar.adapters.services.http import HttpService

    clock, entropy, telemetry = SystemClock(), SystemEntropy(), PrometheusTelemetry()
    identity = Identity(
        namespace=config.namespace,
        service=config.service,
        incarnation=entropy.incarnation(),
        host=socket.gethostname(),
        version=__version__,
    )
    notices = _notices(config, dsn)
    ports = Ports(
        store=await _store(config, dsn),
        queue=_queue(config, notices, telemetry),
        notices=notices,
        service=HttpService(
            config.service_url,
            clock=clock,
            ready_path=config.ready,
            auth_header=config.service_auth.as_header() if config.service_auth else None,
            max_body=config.body_limits.bytes,
        ),
        election=_election(config, dsn, clock, entropy),
        clock=clock,
        entropy=entropy,
        telemetry=telemetry,
    )
    settings = Settings(
        concurrency=config.concurrency,
        lease_margin=config.lease_margin,
        max_batch=config.store.group_commit.max_batch,
        writers=config.store.group_commit.writers,
        heartbeat_s=config.heartbeat.total_seconds(),
        drain_s=config.drain.total_seconds(),
        look=LookInterval(config.look.min.total_seconds(), config.look.max.total_seconds()),
        duties=DutyTimes(silent_after=config.silent_after),
    )
    return Agent(identity, ports, settings), telemetry


async def _store(config: SidecarConfig, dsn: str) -> Store:
    from sidecar.adapters.postgres.migrate import migrate
    from sidecar.adapters.stores.postgres import PostgresStore

    store = config.store
    if store.embedded is not None:
        await migrate(dsn, store.schema_name)
    return PostgresStore(
        dsn,
        compile_document=compile_stored,
        render=render,
        schema=store.schema_name,
        writers=store.group_commit.writers,
        readers=store.pool.max,
    )


def _notices(config: SidecarConfig, dsn: str) -> Notices:
    from sidecar.adapters.postgres.notices import PostgresNotices

    return PostgresNotices(
        dsn,
        schema=config.store.schema_name,
        namespace=config.namespace,
        service=config.service,
    )


def _queue(config: SidecarConfig, notices: Notices, telemetry: PrometheusTelemetry) -> Queue:
    match config.queue:
        case config_model.PostgresQueue():
            from sidecar.adapters.queues.postgres import PostgresQueue

            return PostgresQueue(notices, service=config.service)
        case config_model.KafkaQueue() as kafka:
            try:
                from sidecar.adapters.queues.kafka import KafkaQueue
            except ModuleNotFoundError as error:
                raise MissingExtra("kafka", "aiokafka") from error

            return KafkaQueue(
                _kafka_settings(kafka),
                namespace=config.namespace,
                service=config.service,
                telemetry=telemetry,
            )
        case _:
            assert_never(config.queue)


def _kafka_settings(kafka: config_model.KafkaQueue) -> KafkaSettings:
    from sidecar.adapters.kafka.security import KafkaSecurity
    from sidecar.adapters.kafka.settings import KafkaSettings

    security = KafkaSecurity(
        protocol=kafka.security_protocol,
        cafile=kafka.ssl_cafile,
        certfile=kafka.ssl_certfile,
        keyfile=kafka.ssl_keyfile,
        key_password=_revealed(kafka.ssl_password),
        mechanism=kafka.sasl_mechanism,
        username=_revealed(kafka.sasl_username),
        password=_revealed(kafka.sasl_password),
    )
    return KafkaSettings(
        bootstrap_servers=tuple(map(str, kafka.bootstrap_servers)),
        prefix=kafka.topic_prefix,
        partitions=kafka.partitions,
        replication_factor=kafka.replication_factor,
        client=security.client_options(),
    )


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _election(
    config: SidecarConfig, dsn: str, clock: SystemClock, entropy: SystemEntropy
) -> Election:
    from sidecar.adapters.elections.postgres import PostgresElection

    return PostgresElection(dsn, config.namespace, clock=clock, entropy=entropy)
