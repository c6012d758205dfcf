"""The simulator: one workflow of a definition in virtual time, with the faults that are wanted.

- `faults`: what can go wrong with a step
- `services`: scripted services, which honour keys and do what the faults say
- `samples`: made-up data where none was given
- `running`: one run: the real machine and renderer, a heap of moments in place of sidecars
- `matrix`: every fault by itself, and every two together
- `telling`: runs for people and for programs
"""

from __future__ import annotations

from sidecar.definitions.simulator import telling
from sidecar.definitions.simulator.faults import Fault, FaultKind, every_fault, parse_fault
from sidecar.definitions.simulator.matrix import Matrix, every_run
from sidecar.definitions.simulator.running import PlannedSignal, Run, Scenario, simulate

__all__ = [
    "Fault",
    "FaultKind",
    "Matrix",
    "PlannedSignal",
    "Run",
    "Scenario",
    "every_fault",
    "every_run",
    "parse_fault",
    "simulate",
    "telling",
]
