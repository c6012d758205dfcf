"""A world to be harmed: PostgreSQL, perhaps Kafka, the services, and sidecars beside them.

Everything is a process of its own, on loopback, and ends with the world. What fails says the
seed, what is wrong, the history and the ledger of the first workflows at fault, and the ends of
all logs. A sidecar is called `SERVICE-NUMBER`, like `payments-1`.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, Self

import psycopg

from tests.chaos.asking import Asking, ask
from tests.chaos.checker import check, tally
from tests.chaos.databases import create_migrated
from tests.chaos.definitions import DEFINITIONS, MIX, SERVICES, Order
from tests.chaos.expectations import Expectations, Rule, Violation
from tests.chaos.ledger import Ledger
from tests.chaos.proxy import FaultProxy
from tests.chaos.report import ChaosError, report
from tests.chaos.rows import Rows, ended, leases, read_rows, unfinished
from tests.chaos.sidecars import Sidecar
from tests.chaos.watching import Watch
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer
from tests.servers.processes import freeze, private_folder

_READY_WITHIN_S = 40.0
_POLL_S = 0.05


class World:
    """One run.

    `postgres` and `kafka` are servers to be shared by tests that do not harm them; left out, the
    world starts its own (Kafka only for the queue of that kind). `proxied` puts a proxy on a
    sidecar's way to `store` or `service`, or on the way to its `api`: `{"payments-1": ("store",)}`;
    `proxy_kafka` puts one before the world's own broker. `settings` are added to each sidecar's
    configuration, `own` to that of one; `environment` is one sidecar's:
    `{"payments-1": {FAILPOINTS: "..."}}`. Services that are `apart` have a process of their own,
    `ledger.apart[SERVICE]`.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        replicas: int = 1,
        queue: str = "postgres",
        honours_keys: bool = True,
        apart: Sequence[str] = (),
        supervise: bool = False,
        postgres: PostgresServer | None = None,
        kafka: KafkaServer | None = None,
        proxied: Mapping[str, Sequence[str]] | None = None,
        proxy_kafka: bool = False,
        settings: Mapping[str, Any] | None = None,
        own: Mapping[str, Mapping[str, Any]] | None = None,
        environment: Mapping[str, Mapping[str, str]] | None = None,
        definitions: Sequence[Mapping[str, Any]] = DEFINITIONS,
    ) -> None:
        self.seed = seed
        self.counts: Counter[str] = Counter()
        self.sidecars: dict[str, Sidecar] = {}
        self.proxies: dict[tuple[str, str], FaultProxy] = {}
        self.ledger: Ledger
        self.postgres: PostgresServer
        self.kafka: KafkaServer | None = kafka
        self._honours_keys = honours_keys
        self._apart = apart
        self._supervise = supervise
        self._given_postgres = postgres
        self._queue_kind = queue
        self._proxied = proxied or {}
        self._proxy_kafka = proxy_kafka
        self._settings = settings or {}
        self._own = own or {}
        self._environment = environment or {}
        self._definitions = definitions
        self._names = {
            f"{service}-{number}": service
            for service in SERVICES
            for number in range(1, replicas + 1)
        }
        strangers = {*self._proxied, *self._own, *self._environment} - set(self._names)
        if strangers:
            raise ValueError(f"no such sidecar: {sorted(strangers)}")
        self._stack = ExitStack()
        self._asking: Asking
        self._watch: Watch
        self._dsn = ""
        self.topic_prefix = ""  # of the doorbells' topics, with Kafka
        self._before: Counter[str] = Counter()

    def __enter__(self) -> Self:
        """Start everything, wait until all is ready, and register the definitions."""
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    # -- harm -----------------------------------------------------------------------------------

    def kill9(self, name: str) -> None:
        """Kill a sidecar; a supervised one comes back at once."""
        with self._watch.lock:
            sidecar = self.sidecars[name]
            sidecar.wanted = False
            sidecar.process.kill()
            self.counts["kills"] += 1
            if self._supervise:
                self._watch.revive(sidecar)

    def stop(self, name: str) -> None:
        """Stop a sidecar in its tracks (SIGSTOP)."""
        freeze(self.sidecars[name].process.pid)
        self.counts["stops"] += 1

    def cont(self, name: str) -> None:
        """Let a stopped sidecar go on."""
        self.sidecars[name].signal(signal.SIGCONT)

    def terminate(self, name: str, *, within_s: float = 20.0) -> int:
        """Ask a sidecar to end in good order (SIGTERM), and kill it if it takes longer.

        Returns how it ended. Longer than its `drain` it never should; less than that is a grace
        period that is cut.
        """
        with self._watch.lock:
            sidecar = self.sidecars[name]
            sidecar.wanted = False
            sidecar.process.stop(within_s=within_s)
            self.counts["terminations"] += 1
            return sidecar.process.wait()

    def restart(self, name: str, *, environment: Mapping[str, str] | None = None) -> None:
        """Bring a sidecar back that is not running, with this environment."""
        with self._watch.lock:
            sidecar = self.sidecars[name]
            if sidecar.alive:
                raise RuntimeError(f"{name} is running")
            sidecar.environment = dict(environment or {})
            sidecar.start()
            self.counts["restarts"] += 1

    def proxy(self, name: str, leg: str) -> FaultProxy:
        """The proxy on a leg of a sidecar (`store`, `service`, `api`), or `("kafka", "broker")`."""
        return self.proxies[name, leg]

    def leader(self) -> str | None:
        """The name of a sidecar that says that it leads; None if none does."""
        return next((name for name, one in self.sidecars.items() if one.leads()), None)

    def held(self, name: str) -> int:
        """How many steps a sidecar has claimed and not settled; 0 while PostgreSQL is away."""
        owner = self.sidecars[name].incarnation
        return self._asked(lambda connection: leases(connection, owner)) or 0

    # -- work -----------------------------------------------------------------------------------

    def start(
        self,
        order: Order,
        number: int | None = None,
        *,
        at: str | None = None,
        insist_s: float = 30.0,
    ) -> str | None:
        """Start one workflow at a sidecar (any, if `at` is None); None: in doubt.

        The same number again is the same start key. With `insist_s=0` it is asked for once.
        """
        return self._asking.start(order, number, at=self._address(at), insist_s=insist_s)

    def cancel(self, workflow: str, *, at: str | None = None) -> int | None:
        """Ask that a workflow be undone; the answer's status, None: in doubt."""
        status = self._asking.cancel(workflow, at=self._address(at))
        self.counts[f"cancels:{status}"] += 1
        return status

    def tell(
        self,
        workflow: str,
        verb: str,
        body: Any = None,
        *,
        at: str | None = None,
        insist_s: float = 30.0,
    ) -> int | None:
        """Ask for a verb (`signals/go`, `pause`) until it is answered; the status, or None."""
        status = self._asking.tell(workflow, verb, body, at=self._address(at), insist_s=insist_s)
        self.counts[f"{verb.partition('/')[0]}:{status}"] += 1
        return status

    def begin_load(
        self, count: int, mix: Sequence[Order] = MIX, *, parallel: int = 8, insist_s: float = 60.0
    ) -> Future[list[str]]:
        """Start workflows in the background; the result are the ids that were accepted."""
        return self._asking.begin_load(count, mix, parallel=parallel, insist_s=insist_s)

    def run_load(
        self, count: int, mix: Sequence[Order] = MIX, *, parallel: int = 8, insist_s: float = 60.0
    ) -> list[str]:
        """Start workflows; return when all were accepted or are in doubt, not when they ended."""
        return self.begin_load(count, mix, parallel=parallel, insist_s=insist_s).result()

    def wait_until(
        self, fact: Callable[[], bool], *, within_s: float, what: str, every_s: float = _POLL_S
    ) -> None:
        """Return when a fact holds; fail with the report if it never does."""
        deadline = time.monotonic() + within_s
        while not fact():
            if time.monotonic() > deadline:
                raise self._error(f"{what}: not within {within_s} s")
            threading.Event().wait(every_s)

    def wait_ended(self, count: int, *, within_s: float = 30.0) -> None:
        """Return when so many workflows have ended: the run is in its middle."""
        self.wait_until(
            lambda: (self._asked(ended) or 0) >= count,
            within_s=within_s,
            what=f"{count} workflows ended",
        )

    def quiesce(self, *, within_s: float, meanwhile: Callable[[], None] | None = None) -> None:
        """Return when every workflow has ended and no step is claimed or claimable."""
        deadline = time.monotonic() + within_s
        while self._asked(unfinished) != 0:
            if meanwhile is not None:
                meanwhile()
            if time.monotonic() > deadline:
                raise self._error(f"not at rest within {within_s} s", self._check(Expectations()))
            threading.Event().wait(_POLL_S)

    def verify(self, expectations: Expectations) -> Counter[str]:
        """Judge the run; return what happened, or fail with the report."""
        found = self._check(expectations)
        if found:
            vacuous = all(one.rule is Rule.VACUOUS for one in found)
            raise self._error("invalid: it proves nothing" if vacuous else "violated", found)
        return self.tally()

    def failure(self, what: str) -> ChaosError:
        """What a test raises that has found something wrong by itself."""
        return self._error(what)

    def rows(self) -> Rows:
        """What PostgreSQL says now."""
        with self.connect() as connection:
            return read_rows(connection, tuple(self._watch.leaders), self._watch.crowds)

    def tally(self) -> Counter[str]:
        """What has happened so far, by the names that expectations use."""
        told = tally(self.ledger.entries(), self.rows(), self._asking.starts, self._seen())
        return told - self._before

    def count_anew(self) -> None:
        """Let `tally` and expectations count from now on: a test that shares the world begins."""
        self._before += self.tally()

    def connect(self) -> psycopg.Connection[Any]:
        """A connection of our own, past all proxies."""
        return psycopg.connect(self._dsn, autocommit=True, connect_timeout=5)

    # -- building -------------------------------------------------------------------------------

    def _open(self) -> None:
        enter = self._stack.enter_context
        folder = private_folder("chaos")
        self._stack.callback(shutil.rmtree, folder)
        self.postgres = self._given_postgres or enter(PostgresServer())
        database = f"chaos_{uuid.uuid4().hex}"
        self._dsn = create_migrated(self.postgres, database)
        if self._given_postgres is not None:
            self._stack.callback(self._drop, database)
        queue = self._open_queue(database)
        self.ledger = Ledger(folder, honours_keys=self._honours_keys, apart=self._apart)
        self._stack.callback(self.ledger.stop)
        for name, service in self._names.items():
            port = self._port(name, "service", self.ledger.of(service).port)
            config = {
                "service_url": f"http://127.0.0.1:{port}",
                "store": {"dsn": self._dsn_for(name, database)},
                "queue": queue,
                **self._settings,
                **self._own.get(name, {}),
            }
            sidecar = self.sidecars[name] = Sidecar(name, service, folder, config)
            sidecar.environment = dict(self._environment.get(name, {}))
            sidecar.door = self._port(name, "api", sidecar.http)
            self._stack.callback(sidecar.end)
            sidecar.start()
        self.ledger.call_back_at(*(one.api for one in self.sidecars.values()))
        self._watch = Watch(self.sidecars, self._dsn, self.counts, supervise=self._supervise)
        self._stack.callback(self._watch.close)
        self._asking = Asking(lambda: [one.api for one in self.sidecars.values()], self.seed)
        self._stack.callback(self._asking.close)
        self.wait_ready()
        self._register()

    def wait_ready(self, *, within_s: float = _READY_WITHIN_S) -> None:
        """Return when every sidecar says that it is ready."""
        for sidecar in self.sidecars.values():
            self.wait_until(sidecar.ready, within_s=within_s, what=f"{sidecar.name} is ready")

    def _drop(self, database: str) -> None:
        if self.postgres.alive:  # else its death is what the test failed by, and is told
            self.postgres.drop_database(database)

    def _open_queue(self, prefix: str) -> dict[str, Any]:
        if self._queue_kind != "kafka":
            return {"kind": self._queue_kind}
        if self._proxy_kafka:
            proxy = self._stack.enter_context(FaultProxy())
            self.proxies["kafka", "broker"] = proxy
            # The broker tells its clients where it is: at the proxy, and nowhere else.
            told = {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{proxy.port}"}
            self.kafka = self._stack.enter_context(KafkaServer(settings=told))
            proxy.aim(self.kafka.port)
            servers = [f"127.0.0.1:{proxy.port}"]
        else:
            self.kafka = self.kafka or self._stack.enter_context(KafkaServer())
            servers = [self.kafka.bootstrap_servers]
        self.topic_prefix = prefix
        return {"kind": "kafka", "bootstrap_servers": servers, "topic_prefix": prefix}

    def _port(self, name: str, leg: str, upstream: int) -> int:
        if leg not in self._proxied.get(name, ()):
            return upstream
        proxy = self._stack.enter_context(FaultProxy(upstream))
        self.proxies[name, leg] = proxy
        return proxy.port

    def _dsn_for(self, name: str, database: str) -> str:
        port = self._port(name, "store", self.postgres.port)
        return self._dsn.replace(f":{self.postgres.port}/{database}", f":{port}/{database}")

    def _register(self) -> None:
        for definition in self._definitions:
            status, told = ask(
                next(iter(self.sidecars.values())).api, "/v1/definitions", definition
            )
            if status not in (200, 201):
                raise self._error(f"a definition was refused: {status} {told}")

    def _address(self, name: str | None) -> str | None:
        return None if name is None else self.sidecars[name].api

    # -- judging --------------------------------------------------------------------------------

    def _asked(self, question: Callable[[psycopg.Connection[Any]], int]) -> int | None:
        """The answer of PostgreSQL; None while it is away."""
        try:
            with self.connect() as connection:
                return question(connection)
        except psycopg.OperationalError:
            return None

    def _seen(self) -> Counter[str]:
        seen = Counter(self.counts)
        seen["exits"] = len(self._watch.exits)
        for (name, leg), proxy in self.proxies.items():
            for fault, number in proxy.counts.items():
                seen[f"proxy:{fault}"] += number
                seen[f"proxy:{name}:{leg}:{fault}"] += number
        return seen

    def _check(self, expectations: Expectations) -> list[Violation]:
        return check(
            self.ledger.entries(),
            self.rows(),
            self._asking.starts,
            expectations,
            cancels=self._asking.cancels,
            exits=self._watch.exits,
            seen=self._seen(),
            before=self._before,
            files={name: one.open_files for name, one in self.sidecars.items()},
        )

    def _error(self, what: str, found: Sequence[Violation] = ()) -> ChaosError:
        return report(self.seed, what, found, self)
