"""The queue on a real broker that demands TLS and a password; what is said when one is wrong."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.adapters.kafka.security import KafkaSecurity
from sidecar.adapters.kafka.settings import KafkaSettings
from sidecar.adapters.queues.kafka import KafkaQueue
from sidecar.adapters.telemetry.memory import MemoryTelemetry
from sidecar.errors import ConfigError, QueueUnavailable
from tests.conformance.queue import bells, opened, take_all
from tests.servers.kafka import KafkaServer

PASSWORD = "made-up-secret"
_STORE = "made-up-store"
_LOGIN = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    f'username="broker" password="{PASSWORD}" user_broker="{PASSWORD}" user_app="{PASSWORD}";'
)


class Secured:
    """A broker that speaks TLS to those who know the password."""

    def __init__(self, folder: Path) -> None:
        self.cafile = folder / "ca.pem"
        keys = folder / "keys.p12"
        of_keys = ["-keystore", str(keys), "-storepass", _STORE, "-alias", "broker"]
        names = ["-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1"]
        _keytool("-genkeypair", *of_keys, *names, "-keyalg", "EC", "-storetype", "PKCS12")
        _keytool("-exportcert", "-rfc", *of_keys, "-file", str(self.cafile))
        self.server = KafkaServer(
            settings={
                "listener.security.protocol.map": "PLAINTEXT:SASL_SSL,CONTROLLER:PLAINTEXT",
                "sasl.enabled.mechanisms": "PLAIN",
                "sasl.mechanism.inter.broker.protocol": "PLAIN",
                "listener.name.plaintext.plain.sasl.jaas.config": _LOGIN,
                "ssl.keystore.type": "PKCS12",
                "ssl.keystore.location": str(keys),
                "ssl.keystore.password": _STORE,
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.cafile),
            }
        )

    def queue(self, security: KafkaSecurity) -> KafkaQueue:
        settings = KafkaSettings(
            (self.server.bootstrap_servers,),
            prefix=f"t{uuid.uuid4().hex}",
            partitions=2,
            replication_factor=1,
            client=security.client_options(),
        )
        assert PASSWORD not in repr(settings) + repr(security)
        return KafkaQueue(
            settings, namespace="default", service="payments", telemetry=MemoryTelemetry()
        )


def _keytool(*words: str) -> None:
    subprocess.run(["keytool", *words], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def secured(
    kafka_server: KafkaServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    """The broker; `kafka_server` only says whether there is one to be had."""
    made = Secured(tmp_path_factory.mktemp("keys"))
    yield made
    made.server.stop()


def _security(cafile: Path | None, password: str = PASSWORD) -> KafkaSecurity:
    return KafkaSecurity(
        "SASL_SSL", cafile=cafile, mechanism="PLAIN", username="app", password=password
    )


@pytest.mark.kafka
async def test_doorbells_travel_over_tls_with_a_password(secured: Secured) -> None:
    async with opened(secured.queue(_security(secured.cafile))) as queue:
        await queue.publish(bells(range(5)))
        await take_all(queue, bells(range(5)))


@pytest.mark.kafka
async def test_what_the_broker_refuses_is_told_and_no_secret_with_it(secured: Secured) -> None:
    for security, expected in (
        (_security(secured.cafile, "another"), "uthentication failed"),
        (_security(None), "certificate verify failed"),
        (KafkaSecurity("PLAINTEXT"), "nable"),
    ):
        queue = secured.queue(security)
        with pytest.raises(QueueUnavailable, match=expected) as caught:
            await queue.open()
        await queue.close()
        assert PASSWORD not in str(caught.value)
        assert "another" not in str(caught.value)


def test_files_that_hold_something_else_are_named_with_their_key(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("nothing of the kind")
    with pytest.raises(ConfigError, match=r"queue\.ssl_cafile: .*notes.txt holds no certificates"):
        KafkaSecurity("SSL", cafile=file).client_options()
    with pytest.raises(ConfigError, match=r"queue\.ssl_certfile: .*notes.txt"):
        KafkaSecurity("SSL", certfile=file).client_options()
