"""What can be set, with bounds and defaults. All models are frozen and refuse unknown keys."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sidecar.config.values import (
    Address,
    CallbackUrl,
    Dsn,
    HeaderSecret,
    HostName,
    ListenAddress,
    ReadableFile,
    Secret,
    Server,
    ServiceUrl,
    TextOrSecret,
)
from sidecar.definitions.catalogues import Catalogue
from sidecar.definitions.durations import Between, duration_text
from sidecar.definitions.names import LATER, ServiceName, ServicePath, check_name
from sidecar.definitions.rates import RatePlan
from sidecar.saga.pacing import RateLimit


class Section(BaseModel):
    """What all sections share: nothing unknown, nothing changed, no values in messages.

    `unsupported` names keys of the language that this version refuses, in words.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True
    )
    unsupported: ClassVar[dict[str, str]] = {}


def _check_schema(name: str) -> str:
    if name.startswith("pg_"):
        raise ValueError("must not begin with pg_, which belongs to PostgreSQL")
    return check_name(name)


def _check_topic_prefix(prefix: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", prefix, re.ASCII):
        raise ValueError("must hold only letters, digits, `.`, `_` and `-`, like goconductor")
    return prefix


def _split(value: object) -> object:
    return [one.strip() for one in value.split(",")] if isinstance(value, str) else value


class PoolSizes(Section):
    """How many connections to PostgreSQL read at most; they are made as they are needed."""

    max: Annotated[int, Field(ge=2, le=100)] = 4


class GroupCommit(Section):
    """How many members one transaction takes, and how many transactions are open at once."""

    max_batch: Annotated[int, Field(ge=1, le=5_000)] = 500
    writers: Annotated[int, Field(ge=1, le=64)] = 1


class StoreConfig(Section):
    """Where the truth is kept: a PostgreSQL by its `dsn`, or an embedded one in a folder."""

    model_config = ConfigDict(populate_by_name=True)

    dsn: Dsn | None = None
    embedded: Path | None = None
    schema_name: Annotated[str, AfterValidator(_check_schema), Field(alias="schema")] = (
        "goconductor"
    )
    pool: PoolSizes = PoolSizes()
    group_commit: GroupCommit = GroupCommit()

    @model_validator(mode="after")
    def _one_of_two(self) -> StoreConfig:
        if self.dsn is not None and self.embedded is not None:
            raise ValueError("dsn and embedded exclude each other; keep one")
        if self.dsn is None and self.embedded is None:
            raise ValueError(NO_STORE)
        return self


NO_STORE = (
    "says nowhere where to keep the state; write one of these two lines:\n"
    '  store: { dsn: "postgresql://user@host/database" }   # a PostgreSQL of yours\n'
    "  store: { embedded: ./data }                         # a PostgreSQL run from this folder"
)


class PostgresQueue(Section):
    """The store is the queue: nothing else to run."""

    kind: Literal["postgres"] = "postgres"


class KafkaQueue(Section):
    """Doorbells travel over Kafka; each service has a topic `<topic_prefix>...` of its own."""

    kind: Literal["kafka"]
    bootstrap_servers: Annotated[tuple[Server, ...], Field(max_length=100)]
    topic_prefix: Annotated[str, Field(max_length=100), AfterValidator(_check_topic_prefix)] = (
        "goconductor"
    )
    partitions: Annotated[int, Field(ge=1, le=1_000)] = 12
    replication_factor: Annotated[int, Field(ge=1, le=10)] = 1
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: ReadableFile | None = None
    """The authorities that the brokers' certificates are of; left out: the system's."""
    ssl_certfile: ReadableFile | None = None
    """Our own certificate, where brokers ask for one."""
    ssl_keyfile: ReadableFile | None = None
    """Its key; left out: it is in the same file."""
    ssl_password: Secret | None = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: TextOrSecret | None = None
    sasl_password: Secret | None = None

    @field_validator("bootstrap_servers", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        """The environment gives one text: `host:9092,other:9092`."""
        return _split(value)

    @field_validator("bootstrap_servers")
    @classmethod
    def _at_least_one(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        if not servers:
            raise ValueError('must name at least one broker, like ["127.0.0.1:9092"]')
        return servers

    @model_validator(mode="after")
    def _secured_in_one_way(self) -> KafkaQueue:
        """A key that would change nothing is a mistake: somebody counts on it."""
        for prefix, protocols in (
            ("ssl_", "SSL or SASL_SSL"),
            ("sasl_", "SASL_PLAINTEXT or SASL_SSL"),
        ):
            given = [name for name in type(self).model_fields if name.startswith(prefix)]
            given = [name for name in given if getattr(self, name) is not None]
            if given and self.security_protocol not in protocols.split(" or "):
                raise ValueError(
                    f"{given[0]} needs security_protocol: {protocols}, "
                    f"and it is {self.security_protocol}"
                )
        if self.security_protocol.startswith("SASL"):
            for name in ("sasl_mechanism", "sasl_username", "sasl_password"):
                if getattr(self, name) is None:
                    raise ValueError(f"security_protocol {self.security_protocol} needs {name}")
        if self.ssl_certfile is None and (self.ssl_keyfile or self.ssl_password):
            raise ValueError("ssl_keyfile and ssl_password belong to ssl_certfile; add that")
        return self


class ElectionConfig(Section):
    """Who elects the leader."""

    kind: Literal["postgres"] = "postgres"


class ListenConfig(Section):
    """Where the sidecar listens: `http` is API, UI and callbacks; `metrics` is health too."""

    unsupported = {"grpc": "gRPC"}

    http: ListenAddress = Address("127.0.0.1", 7400)
    metrics: ListenAddress = Address("127.0.0.1", 7402)
    allowed_hosts: Annotated[tuple[HostName, ...], Field(max_length=100)] = ()
    """Names by which the API may be asked, besides those of loopback and `http` itself."""

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        """The environment gives one text: `a.example.org,b.example.org`."""
        return _split(value)

    @model_validator(mode="after")
    def _apart(self) -> ListenConfig:
        if self.http == self.metrics and self.http.port:
            raise ValueError("http and metrics are the same address; give each its own port")
        return self

    @property
    def hosts(self) -> frozenset[str] | None:
        """The names by which the API may be asked; None: it listens to others, under any name."""
        if not self.http.loopback and not self.allowed_hosts:
            return None
        return frozenset((self.http.host.lower(), *self.allowed_hosts))


class ServiceAuth(Section):
    """The header that proves to the service who calls: `{header, value}` or `{bearer}`."""

    header: str | None = None
    value: HeaderSecret | None = None
    bearer: HeaderSecret | None = None

    @field_validator("header")
    @classmethod
    def _token(cls, header: str | None) -> str | None:
        if header is not None and not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", header):
            raise ValueError("must be the name of a header, like X-Api-Key")
        own = ("host", "content-length", "content-type", "idempotency-key", "transfer-encoding")
        if header is not None and (header.lower() in own or header.lower()[:12] == "goconductor-"):
            raise ValueError("is a header that the sidecar sets itself; choose another")
        return header

    @model_validator(mode="after")
    def _one_form(self) -> ServiceAuth:
        own = self.header is not None and self.value is not None and self.bearer is None
        bearer = self.bearer is not None and self.header is None and self.value is None
        if not own and not bearer:
            raise ValueError(
                "must be { bearer: env:NAME } or { header: X-Api-Key, value: env:NAME }"
            )
        return self

    def as_header(self) -> tuple[str, str]:
        """The header's name and its secret value, for the call itself."""
        if self.bearer is not None:
            return "Authorization", f"Bearer {self.bearer.get_secret_value()}"
        if self.header is None or self.value is None:
            raise ValueError("a ServiceAuth without a header was made past its validation")
        return self.header, self.value.get_secret_value()


class BodyLimits(Section):
    """How large a body the service may answer with, in `bytes`, counted decompressed."""

    bytes: Annotated[int, Field(ge=1_024, le=16 * 1024 * 1024)] = 1024 * 1024


class LookInterval(Section):
    """How often an idle sidecar looks into the store by itself, backing off from min to max."""

    min: Annotated[timedelta, Between("10ms", "1m")] = timedelta(seconds=2)
    max: Annotated[timedelta, Between("10ms", "5m")] = timedelta(seconds=5)

    @model_validator(mode="after")
    def _in_order(self) -> LookInterval:
        if self.min > self.max:
            raise ValueError(
                f"min ({duration_text(self.min)}) is more than max ({duration_text(self.max)}); "
                "raise max"
            )
        return self


class LogConfig(Section):
    """How it logs; `auto` is `console` at a terminal and `json` elsewhere."""

    format: Literal["json", "console", "auto"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


def _read_kind(value: Any) -> Any:
    return value.get("kind", "postgres") if isinstance(value, dict) else getattr(value, "kind", "")


def _check_kind(name: str, own: tuple[str, ...], later: tuple[str, ...]) -> BeforeValidator:
    """Refuse a backend that this version has not, before its keys are looked at."""

    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        kind = _read_kind(value)
        if kind in later:
            raise ValueError(f"the {name} kind `{kind}` {LATER}; use {' or '.join(own)}")
        if kind not in own:
            raise ValueError(f"its kind must be {' or '.join(own)}")
        return {"kind": kind, **value}

    return BeforeValidator(check)


_QUEUES = ("postgres", "kafka"), ("kinesis", "rabbitmq", "nats")
_ELECTIONS = ("postgres",), ("etcd", "zookeeper")

Queue = Annotated[
    Annotated[PostgresQueue | KafkaQueue, Field(discriminator="kind")],
    _check_kind("queue", *_QUEUES),
]
Election = Annotated[ElectionConfig, _check_kind("election", *_ELECTIONS)]


class SidecarConfig(Section):
    """All settings of one sidecar. Spans of time are written like `10s`."""

    unsupported = {
        "tls": "`tls`",
    }

    service: ServiceName
    """The service this sidecar stands beside."""
    service_url: ServiceUrl
    """Where that service answers: http, https, or unix:///run/app.sock."""
    store: StoreConfig
    namespace: ServiceName = "default"
    """The tenant."""
    queue: Queue = PostgresQueue()
    election: Election = ElectionConfig()
    listen: ListenConfig = ListenConfig()
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Calls in flight to the service."""
    actions: Catalogue = Catalogue()
    """What the service offers: its catalogue, by the names that definitions use."""
    ready: ServicePath | None = None
    """Asked with GET whether the service is ready; left out: a TCP connect."""
    service_auth: ServiceAuth | None = None
    callback_base_url: CallbackUrl | None = None
    """Where the service reaches a sidecar of the namespace; left out: this one's `listen.http`."""
    body_limits: BodyLimits = BodyLimits()
    lease_margin: Annotated[timedelta, Between("100ms", "5m")] = timedelta(seconds=5)
    """Added to a call's timeout to make its lease."""
    look: LookInterval = LookInterval()
    rate_limits: Annotated[dict[ServicePath, RatePlan], Field(max_length=1_000)] = Field(
        default_factory=dict
    )
    """How often paths of the service may be called; left out: as often as there are slots."""
    drain: Annotated[timedelta, Between("0s", "1h")] = timedelta(seconds=25)
    """How long calls in flight are awaited at shutdown."""
    heartbeat: Annotated[timedelta, Between("100ms", "1m")] = timedelta(seconds=5)
    """How often the sidecar says that it is alive."""
    silent_after: Annotated[timedelta, Between("1s", "10m"), Field(validate_default=True)] = (
        timedelta(seconds=20)
    )
    """How long a sidecar may be unseen before its leases end."""
    log: LogConfig = LogConfig()

    @field_validator("silent_after")
    @classmethod
    def _well_above_heartbeat(cls, span: timedelta, info: ValidationInfo) -> timedelta:
        beat: timedelta | None = info.data.get("heartbeat")
        if beat is not None and span < 3 * beat:
            raise ValueError(
                f"must be at least three times heartbeat ({duration_text(beat)}), "
                "or one late beat ends leases"
            )
        return span

    @model_validator(mode="after")
    def _limited_in_one_place(self) -> SidecarConfig:
        told = dict.fromkeys(self.rate_limits, "rate_limits")
        for name, plan in self.actions.actions.items():
            path = plan.execute.path
            if plan.rate_limit is not None and told.setdefault(path, f"actions.{name}") != (
                f"actions.{name}"
            ):
                raise ValueError(
                    f"{told[path]} and actions.{name} both limit the rate of {path}; keep one"
                )
        return self

    @property
    def limited(self) -> dict[str, RateLimit]:
        """How often paths of the service may be called, whether said there or of an action."""
        found = {path: plan.rate for path, plan in self.rate_limits.items()}
        for plan in self.actions.actions.values():
            if plan.rate_limit is not None:
                found[plan.execute.path] = plan.rate_limit.rate
        return found

    @property
    def api_hosts(self) -> frozenset[str] | None:
        """The names by which the API may be asked, by services that call back too; None: any."""
        hosts = self.listen.hosts
        if hosts is None or self.callback_base_url is None:
            return hosts
        return hosts | {urlsplit(self.callback_base_url).hostname or ""}
