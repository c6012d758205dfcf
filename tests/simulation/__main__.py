"""Replay one seed with its story: `SEED=n .venv/bin/python -m tests.simulation`."""

from __future__ import annotations

import os
import sys

from tests.simulation.world import simulate


def main() -> int:
    """Run the seed and print what happened; 1 if something was wrong."""
    seed = int(os.environ.get("SEED", "0"))
    print(f"seed {seed}")
    report = simulate(seed, telling=True)
    print("\n".join(report.story))
    print(f"faults {dict(report.fired)}")
    print(f"ends {dict(report.ends)}; {report.steps} steps, {report.seconds:.0f} virtual seconds")
    print(f"digest {report.digest:08x}")
    for text in report.wrong:
        print(f"WRONG {text}")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
