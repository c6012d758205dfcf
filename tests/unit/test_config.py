"""Settings: three sources, one model, messages that name the key and hide the secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sidecar.adapters.kafka.settings import KafkaSettings
from sidecar.config import (
    Address,
    KafkaQueue,
    PostgresQueue,
    SidecarConfig,
    load_config,
)
from sidecar.errors import ConfigError

WHO = "service: payments\nservice_url: http://127.0.0.1:8080\n"
WHOLE = WHO + 'store: { dsn: "postgresql://app:hunter2@db/sagas" }\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sidecar.yaml"


def loaded(
    file: Path,
    text: str,
    overrides: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> SidecarConfig:
    file.write_text(text)
    return load_config(file, overrides or {}, env or {})


def refused(
    file: Path,
    text: str,
    overrides: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(file, text, overrides, env)
    assert "hunter2" not in str(caught.value)
    return caught.value.message


def test_the_defaults(file: Path) -> None:
    config = loaded(file, WHOLE)
    assert config.namespace == "default"
    assert config.queue == PostgresQueue()
    assert config.election.kind == "postgres"
    assert config.listen.http == Address("127.0.0.1", 7400)
    assert config.listen.metrics == Address("127.0.0.1", 7402)
    assert config.concurrency == 64
    assert (config.store.group_commit.max_batch, config.store.group_commit.writers) == (500, 1)
    assert config.store.schema_name == "goconductor"
    assert config.lease_margin == timedelta(seconds=5)
    assert (config.look.min, config.look.max) == (timedelta(seconds=2), timedelta(seconds=5))
    assert config.drain == timedelta(seconds=25)
    assert (config.heartbeat, config.silent_after) == (timedelta(seconds=5), timedelta(seconds=20))
    assert config.body_limits.bytes == 1024 * 1024
    assert (config.log.format, config.log.level) == ("auto", "info")
    assert config.service_auth is None
    assert config.ready is None


def test_topics_have_their_defaults_here_alone(file: Path) -> None:
    queue = loaded(file, WHOLE + "queue: { kind: kafka, bootstrap_servers: ['a:1'] }\n").queue
    assert isinstance(queue, KafkaQueue)
    made = (queue.topic_prefix, queue.partitions, queue.replication_factor)
    assert made == ("goconductor", 12, 1)
    for name in ("prefix", "partitions", "replication_factor"):
        assert KafkaSettings.__dataclass_fields__[name].default is MISSING


def test_a_configuration_cannot_be_changed(file: Path) -> None:
    config = loaded(file, WHOLE)
    with pytest.raises(ValidationError, match="frozen"):
        config.concurrency = 5  # type: ignore[misc]


def test_no_secret_is_in_the_text_of_a_configuration(file: Path) -> None:
    env = {"TOKEN": "hunter2"}
    config = loaded(file, WHOLE + "service_auth: { bearer: env:TOKEN }\n", env=env)
    assert "hunter2" not in repr(config) + str(config) + config.model_dump_json(by_alias=True)
    assert config.store.dsn is not None
    assert config.store.dsn.get_secret_value() == "postgresql://app:hunter2@db/sagas"


def test_flags_win_over_the_environment_and_that_over_the_file(file: Path) -> None:
    text = WHOLE + "concurrency: 1\nlog: { level: debug, format: json }\ndrain: 1s\n"
    env = {"GOCONDUCTOR_CONCURRENCY": "2", "GOCONDUCTOR_LOG__LEVEL": "error", "OTHER": "x"}
    flags = {"concurrency": 3, "listen.http": "[::1]:0", "log": {"level": None}, "drain": None}
    config = loaded(file, text, flags, env)
    assert config.concurrency == 3
    assert (config.log.level, config.log.format) == ("error", "json")
    assert config.drain == timedelta(seconds=1)
    assert config.listen.http == Address("::1", 0)


def test_everything_may_come_without_a_file() -> None:
    env = {
        "GOCONDUCTOR_SERVICE": "payments",
        "GOCONDUCTOR_SERVICE_URL": "unix:///run/app.sock",
        "GOCONDUCTOR_STORE__EMBEDDED": "./data",
        "GOCONDUCTOR_QUEUE__BOOTSTRAP_SERVERS": "a:9092, b:9092",
        "GOCONDUCTOR_QUEUE__KIND": "kafka",
        "GOCONDUCTOR_LISTEN": "{ http: '0.0.0.0:80' }",
        "GOCONDUCTOR_CONFIG": "ignored",
    }
    config = load_config(None, {}, env)
    assert config.queue == KafkaQueue(kind="kafka", bootstrap_servers=("a:9092", "b:9092"))
    assert config.store.embedded == Path("data")
    assert config.listen.http == Address("0.0.0.0", 80)


def test_the_address_that_commands_ask_is_no_setting(file: Path) -> None:
    env = {"GOCONDUCTOR_SERVER": "http://127.0.0.1:7400"}
    assert loaded(file, WHOLE, env=env).service == "payments"


def test_what_kubernetes_puts_into_the_environment_is_no_setting(file: Path) -> None:
    env = {
        "GOCONDUCTOR_PORT": "tcp://10.0.0.1:7400",
        "GOCONDUCTOR_SERVICE_HOST": "10.0.0.1",
        "GOCONDUCTOR_SERVICE_PORT_HTTP": "7400",
        "GOCONDUCTOR_PORT_7400_TCP_ADDR": "10.0.0.1",
        "GOCONDUCTOR_PAYMENTS_SERVICE_HOST": "10.0.0.1",
    }
    assert loaded(file, WHOLE, env=env).service == "payments"


def test_another_backend_drops_the_keys_of_the_first(file: Path) -> None:
    text = WHOLE + "queue: { kind: kafka, bootstrap_servers: ['a:1'] }\n"
    flags = {"queue": {"kind": "postgres"}, "store.embedded": "data"}
    config = loaded(file, text, flags)
    assert config.queue == PostgresQueue()
    assert config.store.dsn is None


def test_a_store_that_is_nowhere_is_told_the_two_lines(file: Path) -> None:
    for text in (WHO, WHO + "store: {}\n", WHO + "store: { schema: x }\n"):
        message = refused(file, text)
        assert message.startswith("store: ")
        assert "store: { dsn:" in message
        assert "store: { embedded:" in message


def test_two_stores_are_one_too_many(file: Path) -> None:
    assert "exclude each other" in refused(
        file, WHO + "store: { dsn: 'env:D', embedded: x }\n", env={"D": "postgresql://x"}
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("storee: 1", "storee: there is no key 'storee'; did you mean 'store'?"),
        ("log: { lvel: info }", "log.lvel: there is no key 'lvel'; did you mean 'level'?"),
        ("listen: { htp: x }", "did you mean 'http'?"),
        ("service_auth: { baerer: env:X }", "did you mean 'bearer'?"),
        ("queue: { kind: kafka, bootstrap_server: x }", "did you mean 'bootstrap_servers'?"),
        ("queue: { partitions: 3 }", "queue.partitions: there is no key"),
        ("queue: { kind: kafka }", "queue.bootstrap_servers: is missing"),
        ("queue: { kind: kafka, bootstrap_servers: [] }", "at least one broker"),
        ("queue: { kind: kafka, bootstrap_servers: [x] }", "queue.bootstrap_servers[0]: must be"),
        ("queue: { kind: nats }", "queue: the queue kind `nats` is not supported yet"),
        ("queue: { kind: [x] }", "queue: its kind must be postgres or kafka"),
        ("queue: kafka", "queue: "),
        ("election: { kind: etcd }", "election: the election kind `etcd` is not supported yet"),
        ("listen: { grpc: '127.0.0.1:7401' }", "listen.grpc: gRPC is not supported yet"),
        ("listen: { http: 7400 }", "listen.http: must be host:port in quotes"),
        ("listen: { http: '127.0.0.1:70000' }", "listen.http: its port must be from 0 to 65535"),
        ("listen: { http: '[x]:1' }", "listen.http: must hold an IPv6 address"),
        ("listen: { http: '127.0.0.1:7402' }", "listen: http and metrics are the same"),
        ("listen: { allowed_hosts: ['http://x'] }", "listen.allowed_hosts[0]: must be a host name"),
        ("listen: { allowed_hosts: ['x:80'] }", "without scheme and port"),
        ("concurrency: 0", "concurrency: must be at least 1"),
        ("concurrency: 10001", "concurrency: must be at most 10000"),
        ("ready: health", "ready: must begin with /"),
        ("drain: 5", "drain: must have a unit"),
        ("drain: PT5S", "drain: is an ISO 8601 duration"),
        ("look: { min: 10s }", "look: min (10s) is more than max (5s)"),
        ("heartbeat: 30s", "silent_after: must be at least three times heartbeat (30s)"),
        ("log: { format: xml }", "log.format: must be 'json', 'console' or 'auto'"),
        ("namespace: Default", "namespace: must begin with a letter"),
        ("body_limits: { depth: 9 }", "body_limits.depth: there is no key 'depth'"),
        ("body_limits: { bytes: 9 }", "body_limits.bytes: must be at least 1024"),
    ],
)
def test_a_mistake_is_told_by_its_key_and_its_remedy(file: Path, text: str, expected: str) -> None:
    env = {"X": "hunter2"}
    assert expected in refused(file, f"{WHOLE}{text}\n", env=env)


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ("{ dsn: hunter2 }", "store.dsn: must be like postgresql://"),
        ("{ dsn: 'env:NOPE' }", "'NOPE' is not set"),
        ("{ dsn: 'env:ODD' }", "store.dsn: must be like postgresql://"),
        ("{ embedded: x, schema: pg_x }", "store.schema: must not begin with pg_"),
        ("{ embedded: x, pool: { max: 1 } }", "store.pool.max: must be at least 2"),
        ("{ embedded: x, group_commit: { writers: 0 } }", "store.group_commit.writers: must be"),
        ("{ embedded: x, scheam: y }", "did you mean 'schema'?"),
    ],
)
def test_mistakes_in_the_store(file: Path, store: str, expected: str) -> None:
    assert expected in refused(file, f"{WHO}store: {store}\n", env={"ODD": "hunter2"})


@pytest.mark.parametrize(
    ("listen", "names"),
    [
        ("{}", {"127.0.0.1"}),
        ("{ http: '[::1]:7400' }", {"::1"}),
        ("{ http: 'localhost:1', allowed_hosts: 'A.org, b.org' }", {"localhost", "a.org", "b.org"}),
        ("{ http: '0.0.0.0:7400' }", None),
        ("{ http: '0.0.0.0:7400', allowed_hosts: [a.org] }", {"0.0.0.0", "a.org"}),
    ],
)
def test_the_names_by_which_the_api_may_be_asked(
    file: Path, listen: str, names: set[str] | None
) -> None:
    assert loaded(file, f"{WHOLE}listen: {listen}\n").api_hosts == names


def test_a_service_may_call_back_under_the_name_that_it_was_told(file: Path) -> None:
    config = f"{WHOLE}callback_base_url: https://Sagas.example.org/callbacks\n"
    assert loaded(file, config).api_hosts == {"127.0.0.1", "sagas.example.org"}
    assert loaded(file, f"{config}listen: {{ http: '0.0.0.0:7400' }}\n").api_hosts is None


KAFKA = "kind: kafka, bootstrap_servers: ['a:1']"


def test_kafka_over_tls_with_a_password(file: Path, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("certificates")
    (tmp_path / "password").write_text("hunter2\n")
    text = (
        f"queue: {{ {KAFKA}, security_protocol: SASL_SSL, ssl_cafile: '{tmp_path}/ca.pem',"
        f" sasl_mechanism: SCRAM-SHA-256, sasl_username: app,"
        f" sasl_password: 'file:{tmp_path}/password' }}\n"
    )
    config = loaded(file, WHOLE + text)
    assert isinstance(config.queue, KafkaQueue)
    assert config.queue.sasl_username is not None
    assert config.queue.sasl_username.get_secret_value() == "app"
    assert config.queue.sasl_password is not None
    assert config.queue.sasl_password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(config) + config.model_dump_json()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("security_protocol: TLS", "queue.security_protocol: must be 'PLAINTEXT', 'SSL'"),
        ("security_protocol: SASL_SSL", "queue: security_protocol SASL_SSL needs sasl_mechanism"),
        ("sasl_username: env:X", "queue: sasl_username needs security_protocol: SASL_PLAINTEXT or"),
        ("ssl_cafile: FILE", "queue: ssl_cafile needs security_protocol: SSL or SASL_SSL, and it"),
        ("security_protocol: SSL, ssl_keyfile: FILE", "belong to ssl_certfile"),
        (
            "security_protocol: SSL, ssl_cafile: /no/ca",
            "queue.ssl_cafile: the file '/no/ca' cannot",
        ),
        ("sasl_password: hunter2", "queue.sasl_password: must not stand here itself; write env:"),
        (
            "sasl_password: 'env:NOPE'",
            "queue.sasl_password: the environment variable 'NOPE' is not",
        ),
        ("sasl_username: 'secret:X'", "queue.sasl_username: `secret:NAME` is not supported yet"),
        ("sasl_mechanism: GSSAPI", "queue.sasl_mechanism: must be 'PLAIN', 'SCRAM-SHA-256' or"),
        ("sasl_passwort: x", "queue.sasl_passwort: there is no key 'sasl_passwort'; did you mean"),
    ],
)
def test_mistakes_in_the_security_of_kafka(file: Path, more: str, expected: str) -> None:
    text = f"{WHOLE}queue: {{ {KAFKA}, {more.replace('FILE', str(file))} }}\n"
    assert expected in refused(file, text, env={"X": "hunter2"})


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8080",
        "ftp://x",
        "http://",
        "http://x:99999",
        "http://u:hunter2@x",
        "http://x?y",
        "http://x#y",
        "unix://run/app.sock",
        "unix:///",
        "http://a b",
    ],
)
def test_a_service_url_names_one_place(file: Path, url: str) -> None:
    text = WHOLE.replace("http://127.0.0.1:8080", f'"{url}"')
    assert "service_url: " in refused(file, text)


def test_all_mistakes_are_told_at_once(file: Path) -> None:
    message = refused(file, "service: X\nconcurrency: 0\nnope: 1\n")
    keys = {line.split(":")[0] for line in message.splitlines() if not line.startswith(" ")}
    assert keys == {"service", "service_url", "store", "concurrency", "nope"}


def test_secrets_come_from_the_environment_or_a_file(file: Path, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("hunter2\n")
    config = loaded(file, WHOLE + f"service_auth: {{ bearer: 'file:{secret}' }}\n")
    assert config.service_auth is not None
    assert config.service_auth.as_header() == ("Authorization", "Bearer hunter2")
    text = WHOLE + "service_auth: { header: X-Api-Key, value: env:KEY }\n"
    config = loaded(file, text, env={"KEY": "hunter2"})
    assert config.service_auth is not None
    assert config.service_auth.as_header() == ("X-Api-Key", "hunter2")


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ("{ bearer: hunter2 }", "write env:NAME or file:PATH"),
        ("{ bearer: 'secret:X' }", "is not supported yet in this version"),
        ("{ bearer: 'file:/does/not/exist' }", "cannot be read: No such file"),
        ("{ bearer: 'env:EMPTY' }", "'EMPTY' is not set, or empty"),
        ("{ bearer: 'env:LINES' }", "line break"),
        ("{ header: X }", "service_auth: must be { bearer"),
        ("{ header: X, value: env:KEY, bearer: env:KEY }", "service_auth: must be { bearer"),
        ("{ header: 'X Y', value: env:KEY }", "service_auth.header: must be the name"),
        ("{ header: Idempotency-Key, value: env:KEY }", "sets itself"),
    ],
)
def test_mistakes_in_secrets_never_show_them(file: Path, auth: str, expected: str) -> None:
    env = {"EMPTY": "", "LINES": "hunter2\r\nX: y", "KEY": "hunter2"}
    assert expected in refused(file, f"{WHOLE}service_auth: {auth}\n", env=env)


def test_an_environment_variable_that_is_not_yaml_is_not_repeated(file: Path) -> None:
    message = refused(file, WHOLE, env={"GOCONDUCTOR_STORE": "{ dsn: *hunter2"})
    assert "GOCONDUCTOR_STORE begins like" in message


@pytest.mark.parametrize("mark", ["*", "&", "!"])
def test_a_password_that_looks_like_yaml_is_not_repeated(file: Path, mark: str) -> None:
    assert "quote text" in refused(file, f"{WHO}store: {{ dsn: {mark}hunter2 }}\n")


def test_an_unknown_variable_is_told(file: Path) -> None:
    message = refused(file, WHOLE, env={"GOCONDUCTOR_QUEU__KIND": "x"})
    assert message == "queu: there is no key 'queu'; did you mean 'queue'?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2", "a: is given twice"),
        ("service: *x", "service: begins with *, an alias"),
        ("[]", "must be a mapping"),
        ("a: [", "not YAML"),
        ("", "is empty"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(file: Path, text: str, expected: str) -> None:
    message = refused(file, text)
    assert message.startswith(str(file))
    assert expected in message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nope.yaml: cannot be read: No such file"):
        load_config(tmp_path / "nope.yaml", {}, {})


@pytest.mark.parametrize(
    ("written", "loopback"),
    [("127.0.0.1:1", True), ("[::1]:1", True), ("localhost:1", True), ("0.0.0.0:1", False)],
)
def test_an_address_knows_whether_others_can_reach_it(
    file: Path, written: str, loopback: bool
) -> None:
    address = loaded(file, f"{WHOLE}listen: {{ http: '{written}' }}\n").listen.http
    assert address.loopback is loopback
    assert str(address) == written
