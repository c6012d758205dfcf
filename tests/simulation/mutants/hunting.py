"""Who finds a bug: a seed of the simulation, or a test in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.servers.processes import ServerProcess, private_folder
from tests.simulation.mutants.planting import Mutant, planted
from tests.simulation.mutants.plugin import VARIABLE
from tests.simulation.world import simulate

ROOT = Path(__file__).parents[3]
TESTS_WITHIN_S = 150
"""For all the tests that hunt one bug."""

_PATIENCE = {
    False: ("--timeout=5", "--timeout-method=thread"),
    True: ("--timeout=20", "--timeout-method=signal"),
}
"""A bug may make a test wait for ever; without it, none takes more than a second or two.

A signal's exception may hit a task that keeps it to itself, and the test goes on: where there is
no server to be stopped in good order, the whole process is ended.
"""
_OVER = " Timeout "
_FAILED = "FAILED "


class HuntError(Exception):
    """The tests could not be run, so nothing is known of the bug."""


def hunt(mutant: Mutant) -> str | None:
    """Return what finds the bug, or None if nothing does."""
    return _by_tests(mutant) if mutant.tests else _by_simulation(mutant)


def _by_simulation(mutant: Mutant) -> str | None:
    with planted(mutant):
        for seed in range(mutant.within):
            report = simulate(seed)
            if report.wrong:
                return f"seed {seed}: {report.wrong[0]}"
    return None


def _by_tests(mutant: Mutant) -> str | None:
    status, output = run_tests(mutant.tests, mutant)
    if status == 0:
        return None
    failed = [line for line in output.splitlines() if line.startswith(_FAILED)]
    if status == 1 and _OVER in output:
        return f"{failed[0].removeprefix(_FAILED) if failed else mutant.tests[0]} waits for ever"
    if status != 1 or not failed:
        raise HuntError(f"{mutant.name}: the tests ended with status {status}\n{output}")
    return failed[0].removeprefix(_FAILED)


def run_tests(tests: Sequence[str], mutant: Mutant | None = None) -> tuple[int, str]:
    """Run tests, with the bug planted, until one fails; return pytest's status and its words."""
    options = ["-q", "-x", "--tb=line", "-p", "no:cacheprovider"]
    variables = ["SERVERS_REQUIRED=1"]
    if mutant is not None:
        options += ["-p", "tests.simulation.mutants.plugin", *_PATIENCE[mutant.needs_postgres]]
        variables.append(f"{VARIABLE}={mutant.name}")
    folder = private_folder("hunt")
    process = ServerProcess(
        ["env", f"--chdir={ROOT}", *variables, sys.executable, "-m", "pytest", *options, *tests],
        log=folder / "log",
    )
    try:
        return process.wait(within_s=TESTS_WITHIN_S), process.log.read_text()
    except subprocess.TimeoutExpired as error:
        raise HuntError(f"the tests did not end:\n{process.tail()}") from error
    finally:
        process.kill()
        shutil.rmtree(folder)
