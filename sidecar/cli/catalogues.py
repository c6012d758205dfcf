"""Catalogues from files: what services offer, without asking any sidecar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli.failure import Failure

if TYPE_CHECKING:
    from sidecar.definitions.catalogues import Catalogue
    from sidecar.definitions.pins import CatalogueRef

catalogue_option = click.option(
    "--catalogue",
    "catalogues",
    metavar="SIDECAR.YAML",
    multiple=True,
    type=click.Path(path_type=Path),
    help="The configuration of a service's sidecar, for the `actions` that it offers; repeatable.",
)


def read_catalogues(files: tuple[Path, ...]) -> dict[CatalogueRef, Catalogue]:
    """The catalogues in the configurations of sidecars, by their services."""
    found: dict[CatalogueRef, Catalogue] = {}
    for file in files:
        service, catalogue = _read(file)
        if (service, None) in found:
            raise Failure(f"{file}: an earlier --catalogue is that of {service}, too; keep one.")
        found[service, None] = catalogue
    return found


def _read(file: Path) -> tuple[str, Catalogue]:
    from sidecar.definitions.catalogues import read_actions
    from sidecar.definitions.documents import read_document
    from sidecar.definitions.findings import Findings
    from sidecar.errors import DefinitionError

    try:
        document = read_document(file.read_bytes(), "yaml")
        findings = Findings(document.positions)
        settings = document.value if isinstance(document.value, dict) else {}
        service = settings.get("service")
        if not isinstance(service, str):
            findings.add(("service",), "is missing; write whose catalogue it is: service: payments")
        if "actions" not in settings:
            findings.add(("actions",), "is missing; write what the service offers")
        catalogue = read_actions(settings.get("actions", {}), findings)
        findings.check()
    except OSError as error:
        raise Failure(f"the file cannot be read: {error}") from None
    except DefinitionError as error:
        told = "\n".join(f"  {where or 'document'}: {text}" for where, text in error.problems)
        raise Failure(f"{file} holds no catalogue:\n{told}") from None
    return str(service), catalogue
