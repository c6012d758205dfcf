"""What a client can ask to be begun: register a definition, start a workflow.

Every face goes through here, so a rule that stands here holds for all of them. What a command
writes goes through the committer, and is durable when the command returns.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from sidecar.definitions import ParsedDefinition, compile_stored, parse_definition
from sidecar.definitions.checker import Report
from sidecar.engine.compiled import CompiledDefinitions
from sidecar.engine.duty_times import SILENT_AFTER
from sidecar.engine.failpoints import Site, failpoint
from sidecar.engine.findings import findings
from sidecar.engine.group_commit import Committer
from sidecar.engine.intake import (
    canonical,
    check_body,
    checked_labels,
    checked_start_key,
    storable,
    valid_trace,
)
from sidecar.engine.offering import lacking
from sidecar.engine.pinning import pinned
from sidecar.engine.slots import Slots
from sidecar.engine.views import DefinitionView, StartedView, definition_view
from sidecar.errors import Conflict, IllegalTransition, NotFound, StartKeyReused
from sidecar.ports.entropy import Entropy
from sidecar.ports.store import KeyReused, Outdated, Rerun, Retired, Start, StartResult, Store
from sidecar.saga.definition import Definition
from sidecar.saga.workflow import DefinitionRef, WorkflowId

COMMIT_WITHIN = 20.0
"""Seconds that a command waits for its commit before it says that it does not know."""


class Commands:
    """The commands of one sidecar. All raise `StoreUnavailable` and `Overloaded`.

    `may_claim` says whether a step of `service` may be claimed now, as far as `slots` and gate go;
    `offered` are the actions that its calls can be looked up by. A sidecar that was not seen for
    `silent_after` is none that lives.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        compiled: CompiledDefinitions,
        entropy: Entropy,
        slots: Slots,
        service: str,
        may_claim: Callable[[], bool],
        *,
        offered: Collection[str] = (),
        silent_after: timedelta = SILENT_AFTER,
    ) -> None:
        self._silent_after = silent_after
        self._service = service
        self._offered = offered
        self._slots = slots
        self._may_claim = may_claim
        self._store = store
        self._committer = committer
        self._compiled = compiled
        self._entropy = entropy

    def new_id(self) -> WorkflowId:
        """Return an id to start a workflow with."""
        return self._entropy.workflow_id()

    async def check_definition(
        self, namespace: str, text: bytes, content_type: str, *, allow_missing: bool = False
    ) -> tuple[Definition, Report]:
        """Return what a document would become, as version 0, and what the checker finds in it.

        Raises `DefinitionError`, and `Conflict` for a catalogue that this version cannot read.
        """
        parsed = await self._pinned(namespace, text, content_type, allow_missing=allow_missing)
        compiled = compile_stored(parsed.document, namespace, parsed.name, 0)
        return compiled, await self._findings(compiled)

    async def register_definition(
        self, namespace: str, text: bytes, content_type: str, *, allow_missing: bool = False
    ) -> tuple[DefinitionView, bool, Report]:
        """Keep a definition; True if it is a new version.

        One that was registered before keeps its number, and is what starts take from now on.

        What the checker finds in it is told, and refuses nothing. `allow_missing` takes actions
        that no catalogue offers. Raises `DefinitionError`, and `Conflict` for a catalogue that
        this version cannot read.
        """
        parsed = await self._pinned(namespace, text, content_type, allow_missing=allow_missing)
        # Before it is stored: a latest version that cannot be read back would stop the name.
        compile_stored(parsed.document, namespace, parsed.name, 0)
        stored, created = await self._store.put_definition(
            namespace, parsed.name, parsed.document, parsed.digest
        )
        failpoint(Site.AFTER_REGISTER)
        compiled = self._compiled.compile(stored)
        return definition_view(stored), created, await self._findings(compiled)

    async def _findings(self, definition: Definition) -> Report:
        """What the checker finds, and what the sidecars that live do not offer."""
        report = await findings(definition, self._compiled)
        more = await lacking(definition, self._store, self._silent_after)
        return dataclasses.replace(report, findings=(*report.findings, *more)) if more else report

    async def _pinned(
        self, namespace: str, text: bytes, content_type: str, *, allow_missing: bool
    ) -> ParsedDefinition:
        parsed = parse_definition(text, content_type)
        return await pinned(
            parsed, namespace, self._compiled, self._store, allow_missing=allow_missing
        )

    async def start(
        self,
        namespace: str,
        definition: str,
        version: int | None = None,
        input: Any = None,  # noqa: A002 - the name that every face and document gives it
        start_key: str | None = None,
        labels: Mapping[str, str] | None = None,
        trace: str | None = None,
        *,
        id: WorkflowId | None = None,  # noqa: A002 - the name that every face gives it
        actor: str = "api",
        rerun: Rerun | None = None,
    ) -> StartedView:
        """Start a workflow; with a `start_key` used before and the same input, return that one.

        `trace` is a W3C traceparent, left out if it is none. `id` is one of `new_id`, for those
        who must know it beforehand. `rerun` says what is run again by it. Raises `InvalidRequest`,
        `NotFound`, `StartKeyReused`, and `Conflict` for a version that is retired or a workflow
        that cannot be run again.
        """
        text = storable(input, "input")
        chosen = await self._runnable(namespace, definition, version)
        check_body(chosen.input_check, text, "input")
        member = Start(
            id=id or self.new_id(),
            definition=chosen,
            input=text,
            input_hash=_digest(input, rerun),
            start_key=checked_start_key(start_key),
            labels=checked_labels(labels or {}),
            trace=valid_trace(trace),
            actor=actor,
            latest=version is None,
            rerun=rerun,
        )
        failpoint(Site.BEFORE_START)
        result = await self._submit(member)
        while isinstance(result, Outdated):  # each time a still later version
            chosen = await self._compiled.latest(namespace, definition)
            check_body(chosen.input_check, text, "input")
            member = replace(member, definition=chosen)
            result = await self._submit(member)
        failpoint(Site.AFTER_START)
        if isinstance(result, KeyReused):
            raise StartKeyReused(
                f"The start key was used for workflow {result.workflow}, with another input.",
                field="start_key",
            )
        if isinstance(result, IllegalTransition):
            raise Conflict(f"The workflow cannot be run again: it is {result.state}.")
        if isinstance(result, Retired):
            raise await self._retired(member.definition)
        return StartedView(
            id=result.workflow,
            status=result.status,
            existed=result.existed,
            deprecated=self._deprecation(member.definition),
        )

    def _deprecation(self, definition: Definition) -> str | None:
        """What whoever started it is to be told."""
        ref = DefinitionRef(definition.namespace, definition.name, definition.version)
        if not self._compiled.is_deprecated(ref):
            return None
        return f"Version {ref.version} of definition {ref.name} is deprecated."

    async def _retired(self, definition: Definition) -> Conflict:
        """Why a version cannot be started, and what can be instead."""
        try:
            latest = await self._compiled.latest(definition.namespace, definition.name)
            instead = f"start version {latest.version}"
        except (Conflict, NotFound):
            instead = "apply a new one, or restore one"
        return Conflict(
            f"Version {definition.version} of definition {definition.name} is retired; {instead}.",
            field="version",
        )

    async def _submit(self, start: Start) -> StartResult:
        """Start it, and with it its first step if that can be called here and a slot is free.

        The slot is kept from others until the claim, if it is made, has taken one for itself.
        """
        if not (self._is_begun_here(start.definition) and self._may_claim()):
            return await self._committer.submit(start, within=COMMIT_WITHIN)
        self._slots.take()
        try:
            member = replace(start, claim_next=True)
            return await self._committer.submit(member, within=COMMIT_WITHIN)
        finally:
            self._slots.give_back()

    def _is_begun_here(self, definition: Definition) -> bool:
        return any(
            root.service == self._service and (not root.action or root.action in self._offered)
            for root in definition.roots
        )

    async def _runnable(self, namespace: str, name: str, version: int | None) -> Definition:
        """The definition to start; of the latest the store makes sure."""
        if version is None:
            return await self._compiled.supposed_latest(namespace, name)
        return await self._compiled.get(DefinitionRef(namespace, name, version))


def _digest(value: Any, rerun: Rerun | None) -> str:
    """What two starts under one key must share: the input, and what is run again."""
    again = b"" if rerun is None else rerun.of.encode()
    return hashlib.sha256(canonical(value) + again).hexdigest()
