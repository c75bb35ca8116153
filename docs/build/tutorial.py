"""Runs the tutorial in a folder and writes docs/tutorial.md with what every step printed.

python docs/build/tutorial.py WORK      a step whose output WORK holds already is not run again
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEMPLATE = Path(__file__).with_name("tutorial.md.in")
MARK = re.compile(r"^\{\{(\w+): (.*)\}\}$", flags=re.MULTILINE)
ROWS = 600


def write_tickets(path: Path) -> None:
    """A file as an office program of 2005 would write it: semicolons, Windows-1252, no order."""
    lines = (ROOT / "recipes" / "support" / "train.tsv").read_text(encoding="utf-8").splitlines()
    with path.open("w", encoding="cp1252", errors="replace", newline="") as handle:
        writer = csv.writer(handle, delimiter=";")
        writer.writerow(["id", "created", "body", "queue"])
        for number, line in enumerate(lines[1 : ROWS + 1]):
            text, label = line.split("\t")
            # an accent on every line, so that the encoding matters
            writer.writerow([number, "2024-01-01", f"{text} \u2014 \u00e9", label])


def output_of(name: str, command: str, work: Path) -> str:
    """What a step printed on both streams, from its file if it ran before."""
    kept = work / f"{name}.out"
    if not kept.exists():
        result = subprocess.run(
            ["bash", "-c", command], cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=True,
        )  # fmt: skip
        kept.write_text(result.stdout, encoding="utf-8")
    return kept.read_text(encoding="utf-8").replace(f"{work.resolve()}/", "").rstrip()


def tutorial(work: Path) -> str:
    """The template with every step run, in its order."""
    if not (work / "tickets.csv").exists():
        write_tickets(work / "tickets.csv")

    def step(found: re.Match[str]) -> str:
        name, command = found.groups()
        shown = output_of(name, command, work)
        return f"```bash\n{command}\n```\n\n```text\n{shown}\n```"

    return MARK.sub(step, TEMPLATE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (ROOT / "docs" / "tutorial.md").write_text(tutorial(folder), encoding="utf-8")
