"""What the pages say is so: their documents are valid, and their lists are whole."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from sidecar.adapters.probe.cases import CASES
from sidecar.api.rest import problems
from sidecar.api.rest.openapi import document
from sidecar.cli.main import main
from sidecar.config import KafkaQueue, SidecarConfig, load_config

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENV = {"KAFKA_PASSWORD": "made-up"}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_queue_that_is_shown_is_a_configuration(tmp_path: Path) -> None:
    (shown,) = blocks(PAGES["operations.md"], "yaml")
    (tmp_path / "ca.pem").touch()
    file = tmp_path / "sidecar.yaml"
    (sidecar,) = (one for one in blocks(README, "yaml") if "service_url" in one)
    file.write_text(sidecar + shown.replace("/etc/kafka", str(tmp_path)))
    assert isinstance(load_config(file, {}, ENV).queue, KafkaQueue)


def test_every_key_of_the_configuration_is_told() -> None:
    told = README + PAGES["operations.md"]
    missing = [key for key in SidecarConfig.model_fields if f"`{key}" not in told]
    assert [key for key in missing if key not in ("election", "service_url")] == []
    missing = [key for key in KafkaQueue.model_fields if f"`{key}`" not in PAGES["operations.md"]]
    assert missing == ["kind"]


def test_every_command_is_told() -> None:
    assert isinstance(main, click.Group)
    for name in main.commands:
        assert f"goconductor {name}" in PAGES["cli.md"]


def test_every_case_of_the_probe_is_told() -> None:
    rows = [f"| `{case.id}` | {case.sent}: {case.demanded} |" for case in CASES]
    assert "\n".join(rows) in PAGES["cli.md"]


def test_every_option_of_the_probe_is_told() -> None:
    assert isinstance(main, click.Group)
    for option in main.commands["probe"].params:
        if isinstance(option, click.Option) and option.name != "output":
            assert f"`{option.opts[-1]}" in PAGES["cli.md"], option.opts


def test_every_operation_and_every_code_is_told() -> None:
    for path, operations in document()["paths"].items():
        written = re.sub(r"\{version\}", "{n}", path)
        for method in operations:
            assert f"`{method.upper()} {written}`" in PAGES["api.md"]
    codes = {kind.code for kind in problems._STATUS} | set(problems._CODES.values())
    for code in codes - {"headers_too_large"}:  # aiohttp answers 400 before it comes to that
        assert f"`{code}`" in PAGES["api.md"]


@pytest.mark.parametrize("name", [*PAGES, "README.md"])
def test_every_link_leads_somewhere(name: str) -> None:
    page, folder = (README, ROOT) if name == "README.md" else (PAGES[name], ROOT / "docs")
    for target, anchor in re.findall(r"\]\(((?!https?:)[^)#]*)(#[^)]*)?\)", page):
        linked = folder / target if target else folder / name
        assert linked.exists(), target
        titles = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
        anchors = {"#" + re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in titles}
        assert not anchor or anchor in anchors, anchor
