"""`make bench`: every benchmark once; a table on standard output, and the figures as JSON.

```
python -m tests.benchmarks [NAME …] [--out FILE.json]
```
"""

from __future__ import annotations

import argparse
import json
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

from igvg_cli.render import note
from igvg_cli.tables import print_table
from tests.benchmarks import (
    auditing,
    command_line,
    data,
    first_answer,
    network,
    report,
    report_page,
    scoring,
    shuffle,
    sweeping,
    training,
)
from tests.benchmarks.figures import Figure

GROUPS = {
    "audit": auditing.measure,
    "command-line": command_line.measure,
    "data": data.measure,
    "first-answer": first_answer.measure,
    "network": network.measure,
    "report": report.measure,
    "report-page": report_page.measure,
    "scoring": scoring.measure,
    "shuffle": shuffle.measure,
    "sweeping": sweeping.measure,
    "training": training.measure,
}


def main() -> None:
    """Measure the groups that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(GROUPS)}")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(GROUPS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    figures: list[Figure] = []
    for name, measure in GROUPS.items():
        if name in (arguments.names or GROUPS):
            note(f"measuring {name} …")
            figures += measure()
    kind = torch.backends.cpu.get_cpu_capability()
    machine = f"{platform.machine()} with {kind}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    rows = [[figure.name, f"{figure.value:,.3g}", figure.unit, figure.bound] for figure in figures]
    print_table(machine, ["measured", "value", "unit", "bound"], rows, left=(0, 2, 3))
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "figures": {figure.name: {"value": figure.value, "unit": figure.unit} for figure in figures},
    }
    arguments.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    note(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
