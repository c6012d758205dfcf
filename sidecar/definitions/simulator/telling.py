"""Runs as people read them, and as JSON data."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sidecar.definitions.simulator.matrix import Matrix
from sidecar.definitions.simulator.running import Run
from sidecar.saga.states import WorkflowStatus


def timeline(run: Run) -> str:
    """A run, line by line."""
    wide = max((len(line.what) for line in run.timeline), default=0)
    lines = [
        f"{_moment(line.after):>12}  {line.what:<{wide}}  {line.text}" for line in run.timeline
    ]
    lines += ["", f"end: {end_of(run)} after {_moment(run.took)}"]
    if run.undone:
        lines.append(f"undone, in this order: {', '.join(run.undone)}")
    lines.append(f"left undone: {', '.join(run.left) or 'nothing'}")
    if run.workflow.output is not None:
        lines.append(f"output: {run.workflow.output}")
    if run.workflow.error is not None:
        lines.append(f"error: {run.workflow.error}")
    lines += [f"waits for: {one}" for one in run.waits_for]
    lines += [f"BROKEN INVARIANT: {one}" for one in run.broken]
    return "\n".join(lines)


def table(matrix: Matrix) -> str:
    """All runs, one line each."""
    rows = [("FAULT", "END", "TOOK", "UNDONE, IN THIS ORDER", "LEFT UNDONE")]
    rows += [
        (
            " + ".join(map(str, run.faults)) or "none",
            end_of(run),
            _moment(run.took),
            ", ".join(run.undone) or "-",
            ", ".join((*run.left, *run.broken)) or "-",
        )
        for run in matrix.runs
    ]
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip()
        for row in rows
    ]
    good = sum(run.good for run in matrix.runs)
    visible = sum(run.keeps_the_promise and not run.good for run in matrix.runs)
    ends = f"{good} all done or all undone, {visible} in `error` for a person"
    rest = len(matrix.runs) - good - visible
    lines += ["", f"{len(matrix.runs)} runs: {ends}, {rest} neither"]
    if matrix.left_out:
        lines.append(f"{matrix.left_out} more were left out: too many")
    return "\n".join(lines)


def end_of(run: Run) -> str:
    """How a run ended, in a word or two."""
    status = run.workflow.status
    if status is WorkflowStatus.ROLLED_BACK:
        return f"{status} ({run.workflow.reason})"
    open_end = status in (WorkflowStatus.IN_PROGRESS, WorkflowStatus.ROLLING_BACK)
    return f"open ({status})" if open_end else status.value


def told(run: Run) -> dict[str, Any]:
    """A run as JSON data."""
    workflow = run.workflow
    return {
        "faults": [str(one) for one in run.faults],
        "status": workflow.status.value,
        "reason": workflow.reason.value if workflow.reason else None,
        "good": run.good,
        "took_ms": round(run.took / timedelta(milliseconds=1)),
        "undone": list(run.undone),
        "left": list(run.left),
        "waits_for": list(run.waits_for),
        "steps": {str(key): step.status.value for key, step in workflow.steps.items()},
        "broken": list(run.broken),
    }


def told_with_timeline(run: Run) -> dict[str, Any]:
    """A run as JSON data, line by line."""
    lines = [
        {"at_ms": round(one.after / timedelta(milliseconds=1)), "what": one.what, "text": one.text}
        for one in run.timeline
    ]
    return {**told(run), "timeline": lines}


def _moment(after: timedelta) -> str:
    seconds = after.total_seconds()
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, rest = divmod(rest, 60)
    if days or hours:
        return f"{int(days)}d {int(hours):02}:{int(minutes):02}:{rest:06.3f}".removeprefix("0d ")
    return f"{int(minutes)}:{rest:06.3f}" if minutes else f"{rest:.3f}s"
