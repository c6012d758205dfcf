"""A private Kafka broker: one node, broker and controller in one, on free loopback ports.

The jars are the real broker's, fetched by tests/servers/install; their version is the one in
kafka.pom.xml. Failure behaviour: `kill()` is SIGKILL; `restart()` brings the same log folder back
on the same ports. Topics are never made by accident: `auto.create.topics.enable` is off.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Self

from tests.servers.processes import (
    ServerError,
    ServerMissingError,
    ServerProcess,
    accepts_connections,
    free_port,
    private_folder,
    run_as,
)

_HERE = Path(__file__).parent
_JARS = _HERE.parent.parent / ".cache" / "kafka"
_READY_WITHIN_S = 60.0
_START_TRIES = 3
_CLUSTER_ID = "R29Db25kdWN0b3JUZXN0cw"
_READY_LINE = "Kafka Server started"

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/logs
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
num.partitions=4
auto.create.topics.enable=false
"""


class KafkaServer:
    """One running broker."""

    def __init__(self, *, settings: dict[str, str] | None = None) -> None:
        self._java = _find_java()
        self._jars = find_jars()
        self._folder = private_folder("kafka")
        self._settings = settings or {}
        self._process: ServerProcess | None = None
        self._starts = 0
        self.port = 0
        try:
            self._start_on_free_ports()
        except BaseException:
            self.stop()
            raise

    @property
    def bootstrap_servers(self) -> str:
        """What a client is given to find the broker."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The number of the broker's process."""
        return self._running.pid

    @property
    def alive(self) -> bool:
        """Whether the broker runs."""
        return self._process is not None and self._process.alive

    def kill(self) -> None:
        """Kill the broker with SIGKILL."""
        self._running.kill()

    def restart(self) -> None:
        """Stop it in good order if it still runs, and start it on the same data and ports."""
        self._running.stop()
        self._start()

    def stop(self) -> None:
        """Stop it and remove its folder; stopping twice is fine."""
        if self._process is not None:
            self._process.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """The broker itself, running."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop, whatever happened."""
        self.stop()

    @property
    def _running(self) -> ServerProcess:
        if self._process is None:
            raise ServerError("Kafka was never started")
        return self._process

    def _start_on_free_ports(self) -> None:
        for last in (False,) * (_START_TRIES - 1) + (True,):
            self.port = free_port()
            try:
                self._format(controller_port=free_port())
                self._start()
            except ServerError:
                if last:
                    raise
            else:
                return

    def _format(self, *, controller_port: int) -> None:
        shutil.rmtree(self._folder / "logs", ignore_errors=True)
        properties = _PROPERTIES.format(
            port=self.port, controller_port=controller_port, folder=self._folder
        )
        extra = "".join(f"{name}={value}\n" for name, value in self._settings.items())
        self._config.write_text(properties + extra)
        command = self._command("kafka.tools.StorageTool", heap_mb=128)
        run_as(
            [*command, "format", "-t", _CLUSTER_ID, "-c", str(self._config)],
            user=None,
            within_s=_READY_WITHIN_S,
        )

    def _start(self) -> None:
        self._starts += 1
        command = self._command("kafka.Kafka", heap_mb=384)
        log = self._folder / f"output-{self._starts}"  # one per start: readiness is read from it
        self._process = ServerProcess([*command, str(self._config)], log=log)
        self._process.wait_until(self._answers, within_s=_READY_WITHIN_S)

    def _answers(self) -> bool:
        return _READY_LINE in self._running.log.read_text() and accepts_connections(self.port)

    @property
    def _config(self) -> Path:
        return self._folder / "server.properties"

    def _command(self, main_class: str, *, heap_mb: int) -> list[str]:
        return [
            self._java,
            f"-Xmx{heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
            "-cp",
            f"{self._jars}/*",
            main_class,
        ]


def kafka_version() -> str:
    """The version that kafka.pom.xml asks for."""
    found = re.search(r"<kafka\.version>([^<]+)<", (_HERE / "kafka.pom.xml").read_text())
    if found is None:
        raise ServerError("kafka.pom.xml names no <kafka.version>")
    return found.group(1)


def find_jars() -> Path:
    """The folder of the broker's jars, if the fetch was completed."""
    folder = _JARS / kafka_version()
    if not (folder / ".complete").exists():
        raise ServerMissingError(f"no Kafka broker in {folder}: run tests/servers/install")
    return folder


def _find_java() -> str:
    found = shutil.which("java")
    if found is None:
        raise ServerMissingError("no Java is installed: run tests/servers/install")
    return found
