"""Putting file, environment and flags together, and saying what is wrong with them.

`GOCONDUCTOR_QUEUE__KIND=kafka` sets `queue.kind`; two underscores go one level down. A value
that begins with `{` or `[` is read as YAML, every other is text. Later sources win, key by
key; choosing another `queue.kind`, or the other of `store.dsn` and `store.embedded`, drops
what belonged to the earlier choice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sidecar.config.model import NO_STORE, KafkaQueue, PostgresQueue, Section, SidecarConfig
from sidecar.definitions.catalogues import read_actions
from sidecar.definitions.documents import MAX_BYTES, read_document
from sidecar.definitions.findings import Findings, sentence, shown
from sidecar.definitions.findings import Path as KeyPath
from sidecar.definitions.names import LATER
from sidecar.errors import ConfigError, DefinitionError

PREFIX = "GOCONDUCTOR_"
# What commands that ask a sidecar read, whoever exported it may start a sidecar all the same; and
# what the engine reads for tests, which is no setting.
_NOT_SETTINGS = ("GOCONDUCTOR_CONFIG", "GOCONDUCTOR_SERVER", "GOCONDUCTOR_FAILPOINTS")

# Kubernetes sets these in every container for a Service whose name begins with "goconductor".
_LINKS = re.compile(
    r"GOCONDUCTOR(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)


def load_config(
    path: Path | None, overrides: Mapping[str, Any], env: Mapping[str, str]
) -> SidecarConfig:
    """Load and check all settings.

    `overrides` are the flags: a mapping like the file's, or with dotted keys
    (`{"queue.kind": "kafka"}`); None means that a flag was not given. Raises `ConfigError`
    with every problem, and never with the value of a secret.
    """
    findings = Findings()
    settings: dict[str, Any] = {}
    if path is not None:
        settings = _read_file(path)
    for source in (_from_environment(env, findings), _from_flags(overrides)):
        _drop_earlier_choice(settings, source)
        _merge(settings, source)
    if "actions" in settings:
        # They are in the words of definitions, and so is what is wrong with them.
        settings["actions"] = read_actions(settings["actions"], findings)
    try:
        config = SidecarConfig.model_validate(settings, context={"env": env})
    except ValidationError as error:
        for one in error.errors(include_url=False, include_input=False):
            _add(one, findings)
    else:
        if not findings.found:
            return config
    raise ConfigError("\n".join(f"{where}: {text}" for where, text in findings.problems()))


# -- the three sources ------------------------------------------------------------------------


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; give another with --config"
        ) from error
    try:
        value = read_document(text, "yaml").value
    except DefinitionError as error:
        told = [f"{path}: {where}{': ' if where else ''}{text}" for where, text in error.problems]
        raise ConfigError("\n".join(told)) from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: must be a mapping of keys to values, like `service: payments`")
    return value


def _from_environment(env: Mapping[str, str], findings: Findings) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name in sorted(env):
        if not name.startswith(PREFIX) or name in _NOT_SETTINGS or _LINKS.fullmatch(name):
            continue
        keys = name.removeprefix(PREFIX).lower().split("__")
        value: Any = env[name]
        if value[:1] in ("{", "["):
            try:
                value = read_document(value, "yaml").value
            except DefinitionError:
                # The original error may repeat what the variable holds.
                findings.add(
                    tuple(keys), f"{name} begins like a YAML mapping or list but is not one"
                )
                continue
        _merge(settings, _nested(keys, value))
    return settings


def _from_flags(overrides: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, value in overrides.items():
        if value is not None:
            nested = _from_flags(value) if isinstance(value, Mapping) else value
            _merge(settings, _nested(key.split("."), nested))
    return settings


def _nested(keys: list[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _drop_earlier_choice(into: dict[str, Any], later: Mapping[str, Any]) -> None:
    """Forget what belongs to a backend that a later source replaces."""
    for key in ("queue", "election"):
        old, new = into.get(key), later.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            before = old.get("kind", "postgres")
            if new.get("kind", before) != before:
                into[key] = {}
    old, new = into.get("store"), later.get("store")
    if isinstance(old, dict) and isinstance(new, dict):
        for chosen, other in (("dsn", "embedded"), ("embedded", "dsn")):
            if chosen in new and other not in new:
                old.pop(other, None)


def _merge(into: dict[str, Any], later: Mapping[str, Any]) -> None:
    """Lay `later` over `into`."""
    for key, value in later.items():
        old = into.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            _merge(old, value)
        else:
            into[key] = _copied(value)


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(one) for key, one in value.items()}
    return value


# -- what is wrong ----------------------------------------------------------------------------


def _add(error: ErrorDetails, findings: Findings) -> None:
    # The discriminator of the queue appears in the path though nobody wrote it.
    path: KeyPath = tuple(error["loc"])
    kinds: dict[str | int, type[Section]] = {"postgres": PostgresQueue, "kafka": KafkaQueue}
    chosen = kinds.get(path[1]) if len(path) > 1 and path[0] == "queue" else None
    section = _section(path[:-1], chosen)
    if chosen is not None:
        path = (path[0], *path[2:])
    if error["type"] == "extra_forbidden":
        key = str(path[-1])
        if key in section.unsupported:
            findings.add(path, f"{section.unsupported[key]} {LATER}")
        else:
            findings.add_unknown(path, "there is no key", key, _keys(section))
    elif path == ("store",) and error["type"] == "missing":
        findings.add(path, NO_STORE)
    elif error["type"] == "missing":
        findings.add(path, f"is missing; {_example(path)}")
    else:
        findings.add(path, sentence(error))


def _example(path: KeyPath) -> str:
    examples = {
        "service": "write the name of the service, like `service: payments`",
        "service_url": "write where it answers, like `service_url: http://127.0.0.1:8080`",
        "bootstrap_servers": 'write like `bootstrap_servers: ["127.0.0.1:9092"]`',
    }
    return examples.get(str(path[-1]), f"write `{shown(str(path[-1]))}: ...`")


def _section(path: KeyPath, chosen: type[Section] | None) -> type[Section]:
    """The model of the section that stands at `path`."""
    if chosen is not None:
        return chosen
    section: type[Section] = SidecarConfig
    for part in path:
        field = section.model_fields.get(str(part))
        found = field and _section_in(field.annotation)
        if not found:
            break
        section = found
    return section


def _section_in(annotation: Any) -> type[Section] | None:
    """The model in an annotation like `ServiceAuth | None`."""
    for one in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(one, type) and issubclass(one, BaseModel) and issubclass(one, Section):
            return one
    return None


def _keys(section: type[Section]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]
