"""`make faults`: runs every test that names a fault, and writes how it went to docs/faults.md.

More words go to pytest: `python -m tests.faults -k kafka` renews a part. Ends with pytest's status.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.page import PAGE, last_results, page
from tests.faults.record import VARIABLE


def main() -> int:
    """Run, and write the page."""
    results = last_results(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.json"
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", "fault", *sys.argv[1:]],
            env={**os.environ, VARIABLE: str(record)},
            check=False,
        )
        noted = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    today = dt.datetime.now(dt.UTC).date()
    for place, outcomes in noted.items():
        bad = next((one for one in outcomes if one != "passed"), "passed")
        results[place] = f"{bad} on {today}"
    PAGE.write_text(page(results), encoding="utf-8")
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
