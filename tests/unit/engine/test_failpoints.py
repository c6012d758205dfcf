"""Failpoints: how they are written, when they fire, and what they do to the process."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, MutableMapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sidecar.engine import failpoints
from sidecar.engine.failpoints import Action, Failpoint, InjectedBug, Site, arm, failpoint, parse
from sidecar.errors import ConfigError, GoConductorError

Logs = list[MutableMapping[str, Any]]

PASSES_ONCE = """
import os, sys
from sidecar.engine.failpoints import Site, arm_from, failpoint
arm_from(os.environ)
failpoint(Site.AFTER_CALL)
print("went on")
"""


@pytest.fixture(autouse=True)
def logs() -> Iterator[Logs]:
    """What was logged; nothing stays armed."""
    with capture_logs() as lines:
        yield lines
    failpoints.disarm()


def passes(site: Site, times: int) -> list[int]:
    """Pass a site so often; return on which passes it raised."""
    raised = []
    for number in range(1, times + 1):
        try:
            failpoint(site)
        except InjectedBug:
            raised.append(number)
    return raised


def child(action: str) -> subprocess.Popen[str]:
    """A process that passes `after_call` once."""
    environment = {**os.environ, failpoints.VARIABLE: f"after_call:{action}"}
    return subprocess.Popen(
        [sys.executable, "-c", PASSES_ONCE],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_what_can_be_written() -> None:
    assert parse("") == parse("  ") == []
    assert parse("look:kill9, after_ack:sleep=1.5s@2,resign:raise@3+,goodbye:stop@1") == [
        Failpoint(Site.LOOK, Action.KILL9),
        Failpoint(Site.AFTER_ACK, Action.SLEEP, 2, seconds=1.5),
        Failpoint(Site.RESIGN, Action.RAISE, 3, and_later=True),
        Failpoint(Site.GOODBYE, Action.STOP),
    ]
    assert parse("look:sleep=500ms")[0].seconds == 0.5
    assert str(parse("look:sleep=500ms@2+")[0]) == "look:sleep=0.5s@2+"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("nowhere:kill9", "there is no site 'nowhere'; there are: after_receive, look, "),
        ("look:explode", "there is no action 'explode'; there are: kill9, stop, raise, sleep"),
        ("look", "is not a failpoint"),
        ("look:kill9,", "is not a failpoint"),
        ("look:kill9@0", "'0' is no pass"),
        ("look:kill9@", "'' is no pass"),
        ("look:kill9@-1", "'-1' is no pass"),
        ("look:kill9@+", "'+' is no pass"),
        ("look:kill9@x", "'x' is no pass"),
        ("look:sleep", "only sleep, has a duration"),
        ("look:kill9=1s", "only sleep, has a duration"),
        ("look:sleep=soon", "'soon' is not a span of time"),
        ("look:sleep=@1", "'' is not a span of time"),
    ],
)
def test_what_cannot_be_read_is_named(written: str, said: str) -> None:
    arm("goodbye:raise")
    with pytest.raises(ConfigError) as error:
        arm(f"look:raise,{written}")
    assert said in error.value.message
    assert error.value.message.startswith("GOCONDUCTOR_FAILPOINTS: ")
    assert repr(written.rstrip(",")) in error.value.message or "''" in error.value.message
    assert passes(Site.LOOK, 1) == []
    assert passes(Site.GOODBYE, 1) == [1]  # a list that is refused changes nothing


def test_the_nth_pass_only_and_every_pass_from_then_on() -> None:
    arm("look:raise,before_ack:raise@2,after_ack:raise@3+")
    assert passes(Site.LOOK, 5) == [1]
    assert passes(Site.BEFORE_ACK, 5) == [2]
    assert passes(Site.AFTER_ACK, 5) == [3, 4, 5]
    assert passes(Site.GOODBYE, 5) == []


def test_a_site_may_be_armed_more_than_once() -> None:
    arm("look:raise@2,look:raise@4")
    assert passes(Site.LOOK, 5) == [2, 4]


def test_what_is_armed_and_what_fires_is_told(logs: Logs) -> None:
    arm("look:raise@2")
    passes(Site.LOOK, 2)
    assert [(line["event"], line["failpoint"], line["log_level"]) for line in logs] == [
        ("failpoint_armed", "look:raise@2", "warning"),
        ("failpoint_fires", "look:raise@2", "warning"),
    ]


def test_the_bug_is_none_of_our_own_errors() -> None:
    assert not issubclass(InjectedBug, GoConductorError)


def test_a_sleep_blocks() -> None:
    arm("look:sleep=30ms")
    before = time.monotonic()
    failpoint(Site.LOOK)
    assert time.monotonic() - before >= 0.03


def test_kill9_leaves_at_once_after_it_was_told() -> None:
    with child("kill9") as process:
        told, _ = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert "failpoint_fires" in told
    assert "went on" not in told


def test_stop_stands_still_until_it_is_let_go_on() -> None:
    with child("stop") as process:
        try:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            assert os.WSTOPSIG(status) == signal.SIGSTOP
            process.send_signal(signal.SIGCONT)
            told, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "went on" in told


def test_a_sidecar_that_is_told_of_no_site_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text("service: payments\nservice_url: http://127.0.0.1:1\nstore: {embedded: data}\n")
    done = subprocess.run(
        [sys.executable, "-m", "sidecar.cli.main", "sidecar", "--config", file],
        env={**os.environ, failpoints.VARIABLE: "nowhere:kill9"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 1
    assert "there is no site 'nowhere'" in done.stderr
    assert not (tmp_path / "data").exists()


def test_each_site_is_documented_and_stands_somewhere() -> None:
    source = Path(failpoints.__file__)
    body = next(
        node.body
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == "Site"
    )
    told = [
        before.targets[0].id
        for before, after in pairwise(body)
        if isinstance(before, ast.Assign)
        and isinstance(before.targets[0], ast.Name)
        and isinstance(after, ast.Expr)
    ]
    assert told == [site.name for site in Site]
    engine = "".join(file.read_text() for file in source.parent.glob("*.py") if file != source)
    assert [site for site in Site if f"Site.{site.name}" not in engine] == []
