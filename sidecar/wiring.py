"""Wiring: the only place that knows every adapter.

A backend is imported where the configuration chooses it, so that an extra that is not chosen
need not be installed; a missing package becomes an error that names the extra.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, assert_never

import structlog
from pydantic import SecretStr

from sidecar import __version__
from sidecar.adapters import logs
from sidecar.adapters.clock import SystemClock
from sidecar.adapters.entropy import SystemEntropy
from sidecar.adapters.telemetry.prometheus import PrometheusTelemetry
from sidecar.api.health import build_health_app
from sidecar.api.rest.app import build_app
from sidecar.api.rest.face import Face
from sidecar.api.rest.hosts import Hosts
from sidecar.api.rest.server import RestServer
from sidecar.config import Address, SidecarConfig
from sidecar.config import model as config_model
from sidecar.definitions import compile_stored, render
from sidecar.engine import failpoints
from sidecar.engine.agent import Agent, Ports, Settings
from sidecar.engine.duties import DutyTimes
from sidecar.engine.identity import Identity
from sidecar.engine.receiving import LookInterval
from sidecar.errors import ConfigError, GoConductorError, MissingExtra, StoreUnavailable
from sidecar.ports.election import Election
from sidecar.ports.notices import Notices
from sidecar.ports.probe import Probed, Report
from sidecar.ports.queue import Queue
from sidecar.ports.store import Store
from sidecar.ports.telemetry import Telemetry

if TYPE_CHECKING:
    from sidecar.adapters.kafka.settings import KafkaSettings
    from sidecar.adapters.postgres.embedded import EmbeddedServer

log = structlog.get_logger("sidecar")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
EMBEDDED_LOOK_S = 2.0
STORE_PAUSE_S = 2.0

T = TypeVar("T")


def run_sidecar(config: SidecarConfig) -> int:
    """Run a sidecar until it is told to stop; return the exit code. Raises `ConfigError`."""
    json = config.log.format == "json" or (config.log.format == "auto" and not sys.stderr.isatty())
    logs.configure(json=json, level=config.log.level)
    failpoints.arm_from(os.environ)
    import uvloop

    # What starting up has made stays for good; and a saga leaves little garbage in cycles, so
    # looking for it after every 700 new objects would be a tenth of the work.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(config))
        except GoConductorError as error:
            # Expected faults are told in one line; a trace would hide what to do.
            log.error("cannot_run", error=error.message, code=error.code)  # noqa: TRY400
            return 1
    return 0


def log_warnings_only() -> None:
    """Set up the log of a command that speaks to a person: only what went wrong."""
    logs.configure(json=False, level="warning")


def migrate_store(where: SidecarConfig | str) -> list[str]:
    """Bring the schema of a store up to date; return the names of what was applied now.

    Raises `StoreError`, `ConfigError`.
    """
    log_warnings_only()
    return asyncio.run(_migrate(where))


async def _migrate(where: SidecarConfig | str) -> list[str]:
    from sidecar.adapters.postgres.migrate import migrate

    if isinstance(where, str):
        return await migrate(where)
    async with AsyncExitStack() as stack:
        database = await Database.of(where, stack)
        return await migrate(await database.dsn(), where.store.schema_name)


def probe_service(probed: Probed) -> Report:
    """Ask a live service every case of the contract.

    Raises `ServiceUnreachable`, `ConfigError`.
    """
    from sidecar.adapters.probe.running import probe

    return asyncio.run(probe(probed, SystemClock(), SystemEntropy()))


@asynccontextmanager
async def embedded_server(folder: Path) -> AsyncIterator[str]:
    """Run the PostgreSQL of a folder, or join the one that runs; yields its DSN."""
    from sidecar.adapters.postgres.embedded import EmbeddedServer

    async with EmbeddedServer(folder) as server:
        yield await server.ensure()


class Database:
    """Where PostgreSQL is: what was configured, or an embedded one, which may move."""

    def __init__(self, given: str, server: EmbeddedServer | None = None) -> None:
        self._given = given
        self._server = server

    @classmethod
    async def of(
        cls, config: SidecarConfig, stack: AsyncExitStack, telemetry: Telemetry | None = None
    ) -> Self:
        """Return the configured one, or start or join the embedded one."""
        if config.store.dsn is not None:
            return cls(config.store.dsn.get_secret_value())
        if config.store.embedded is None:
            raise ConfigError("store: neither dsn nor embedded is given")
        from sidecar.adapters.postgres.embedded import EmbeddedServer

        server = EmbeddedServer(config.store.embedded, telemetry=telemetry)
        stack.push_async_callback(server.close)
        return cls(await server.open(), server)

    async def dsn(self) -> str:
        """Return where it is now. Raises `EmbeddedServerError`."""
        return self._given if self._server is None else await self._server.ensure()

    async def moved(self, dsn: str) -> None:
        """Return when it is no longer at `dsn`; what was configured never moves.

        An embedded server keeps its port, through crashes and from one holder to the next. But a
        stranger may have taken the port meanwhile, and connections cannot follow by themselves.
        """
        while True:
            await asyncio.sleep(EMBEDDED_LOOK_S)
            try:
                if await self.dsn() != dsn:
                    return
            except GoConductorError as error:
                log.warning("embedded_server_away", error=error.message)


async def _serve(config: SidecarConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in STOP_SIGNALS:
        loop.add_signal_handler(one, stop.set)
    telemetry = PrometheusTelemetry()
    async with AsyncExitStack() as stack:
        database = await _unless(stop, Database.of(config, stack, telemetry))
        while database is not None and not stop.is_set():
            await _live(config, database, telemetry, stop)


async def _live(
    config: SidecarConfig, database: Database, telemetry: PrometheusTelemetry, stop: asyncio.Event
) -> None:
    """One life of the sidecar: until it is told to stop, or its database has moved."""
    async with AsyncExitStack() as stack:
        dsn = await _unless(stop, database.dsn())
        agent = None if dsn is None else await _unless(stop, _start(config, dsn, telemetry, stack))
        if dsn is None or agent is None:
            log.info("told_to_stop_while_starting")
            return
        await _unless(stop, database.moved(dsn))
        log.info("told_to_stop" if stop.is_set() else "database_moved")
        await agent.drain()


async def _start(
    config: SidecarConfig, dsn: str, telemetry: PrometheusTelemetry, stack: AsyncExitStack
) -> Agent:
    """Start the engine, then the faces; `stack` ends them in the opposite order."""
    agent = await build_agent(config, dsn, telemetry)
    names = config.api_hosts
    face = Face(
        agent.commands,
        agent.verbs,
        agent.tasks,
        agent.queries,
        agent.waiting,
        namespace=config.namespace,
        hosts=None if names is None else Hosts(names),
        oversight=agent.oversight,
    )
    app = build_app(face)
    faces = {
        "http": (RestServer(app), config.listen.http),
        "metrics": (RestServer(build_health_app(agent, telemetry.render)), config.listen.metrics),
    }
    # Who cannot have the ports is told so before anything is claimed.
    for key, (server, address) in faces.items():
        stack.push_async_callback(server.close)
        try:
            await server.bind(address.host, address.port)
        except OSError as error:
            taken = "end what listens there, or " if error.errno == errno.EADDRINUSE else ""
            raise ConfigError(
                f"listen.{key}: cannot listen on {address}: {error.strerror or error}; "
                f"{taken}give another address"
            ) from error
    agent.callback_base_url = config.callback_base_url or _base_url(*faces["http"][0].address)
    stack.push_async_callback(agent.stop)
    await _start_when_store_answers(agent)
    for key, (server, _) in faces.items():
        log.info("listening", face=key, address=str(Address(*await server.serve())))
    stack.push_async_callback(agent.waiting.close)
    return agent


def _base_url(host: str, port: int) -> str:
    """Where the service beside us reaches us, unless it is told otherwise."""
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - that we listen to all, and are asked here
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _start_when_store_answers(agent: Agent) -> None:
    """Start, however long PostgreSQL is away: often it is started together with us."""
    while True:
        try:
            await agent.start()
        except StoreUnavailable as error:
            log.warning("waiting_for_the_store", error=error.message)
            await asyncio.sleep(STORE_PAUSE_S)
        else:
            return


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Do the work and return what came of it; None if the stop came first, and ended it."""
    doing, told = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((doing, told), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
    finally:
        told.cancel()
        doing.cancel()
        await asyncio.gather(doing, told, return_exceptions=True)
    return None


async def build_agent(config: SidecarConfig, dsn: str, telemetry: PrometheusTelemetry) -> Agent:
    """Return a sidecar that is ready to be started."""
    from sidecar.adapters.services.http import HttpService

    clock, entropy = SystemClock(), SystemEntropy()
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
        rate_limits=config.limited,
        catalogue=config.actions,
    )
    return Agent(identity, ports, settings)


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
