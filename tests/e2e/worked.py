"""The worked definitions of docs/examples, running: one PostgreSQL, a sidecar for each service.

All tests share them; each begins with services that know nothing of the tests before.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import yaml

from tests.chaos.sidecars import Sidecar
from tests.e2e.scripted import WITHIN_S, Services

FOLDER = Path(__file__).parents[2] / "docs" / "examples"
TEXTS = {file.stem: file.read_text("utf-8") for file in sorted(FOLDER.glob("*.yaml"))}
DOCUMENTS = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
ACTOR = "h.meyer"
PAPERS = {"documents": ["passport.pdf", "utility_bill.pdf"]}
OTHER_INPUT = {"scheduled_delivery": {"deliver_on": "2020-01-04"}}
CHANGES = {"customer_onboarding": [("{ duration: 1d }", "{ duration: 200ms }")]}
SIGNALS = {
    "purchase_approval": ("decided", {"approved": True}),
    "customer_onboarding": ("papers_received", PAPERS),
}
"""What keeps a workflow from waiting for days, or for somebody."""


def body_of(what: str, name: str) -> Any:
    """An input, or the outputs of a definition's steps."""
    return json.loads((FOLDER / what / f"{name}.json").read_text("utf-8"))


def keeps(name: str) -> set[str]:
    """The steps of a definition that leave nothing to undo."""
    return {one["name"] for one in DOCUMENTS[name]["steps"] if one.get("compensate") == "none"}


@dataclass
class Running:
    """The sidecars, and a client."""

    services: Services
    sidecars: list[Sidecar]

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "json") -> Any:
        """Ask a sidecar: the status of the answer, and its JSON."""
        headers = {"Content-Type": f"application/{kind}", "GoConductor-Actor": ACTOR}
        url = f"{self.sidecars[0].api}{path}"
        request = Request(url, data=body, headers=headers, method=method)  # noqa: S310
        try:
            with urlopen(request, timeout=60) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)

    def register(self, name: str, *changes: tuple[str, str]) -> int:
        """Register a definition, with other words than it has in its file; its version."""
        text = TEXTS[name]
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        status, told = self.ask("POST", "/v1/definitions", text.encode(), "yaml")
        assert status in (200, 201), told
        assert changes or (told["verdict"], told["findings"]) == ("proved", []), told
        return int(told["version"])

    def start(self, name: str, *changes: tuple[str, str], **other: Any) -> str:
        """Start a workflow with the input that stands in the folder, but for `other`."""
        given = {**body_of("inputs", name), **other}
        version = self.register(name, *changes)
        request = {"definition": name, "version": version, "input": given}
        status, told = self.ask("POST", "/v1/workflows", json.dumps(request).encode())
        assert status == 201, told
        return str(told["id"])

    def begin(self, name: str) -> str:
        """Start a workflow that needs nobody any more."""
        workflow = self.start(name, *CHANGES.get(name, ()), **OTHER_INPUT.get(name, {}))
        if name in SIGNALS:
            self.signal(workflow, *SIGNALS[name])
        return workflow

    def ended(self, workflow: str) -> Any:
        """The view of a workflow that has ended."""
        _, view = self.ask("GET", f"/v1/workflows/{workflow}?wait=50s")
        return view

    def ends(self, workflow: str) -> tuple[str, str | None]:
        """How a workflow ends, and why."""
        view = self.ended(workflow)
        return view["status"], view["reason"]

    def completes(self, workflow: str) -> Any:
        """The output of a workflow that completes."""
        view = self.ended(workflow)
        assert view["status"] == "completed", view
        return view["output"]

    def waits(self, workflow: str, words: str) -> None:
        """Return when a workflow says that it waits for something."""

        def says() -> bool:
            _, view = self.ask("GET", f"/v1/workflows/{workflow}")
            return any(words in line for line in view["waiting_on"])

        self.until(says)

    def until(self, fact: Callable[[], bool]) -> None:
        """Return when a fact holds, of which nobody tells."""
        self.sidecars[0].process.wait_until(fact, within_s=WITHIN_S)

    def signal(self, workflow: str, name: str, payload: Any) -> None:
        """Send a signal."""
        body = json.dumps({"payload": payload}).encode()
        status, told = self.ask("POST", f"/v1/workflows/{workflow}/signals/{name}", body)
        assert status == 202, told


@contextmanager
def running(database: str, folder: Path) -> Iterator[Running]:
    """Start all that the definitions name, and end it."""
    migrate = (sys.executable, "-m", "sidecar.cli.main", "migrate", "--dsn", database)
    subprocess.run(migrate, check=True, stdout=subprocess.DEVNULL)
    steps = [step for document in DOCUMENTS.values() for step in document["steps"]]
    names = sorted({step["service"] for step in steps if "service" in step})
    outputs = {name: body_of("outputs", name) for name in DOCUMENTS}
    with ExitStack() as stack:
        services = stack.enter_context(Services(names, outputs))
        sidecars = []
        for name in names:
            config = {"service_url": services.url(name), "store": {"dsn": database}}
            sidecar = Sidecar(f"{name}-1", name, folder, config)
            stack.callback(sidecar.end)
            sidecar.start()
            sidecars.append(sidecar)
        for sidecar in sidecars:
            sidecar.process.wait_until(sidecar.ready, within_s=2 * WITHIN_S)
        found = Running(services, sidecars)
        for name in ("payment", *DOCUMENTS):  # a child before its parent
            found.register(name)
        yield found
