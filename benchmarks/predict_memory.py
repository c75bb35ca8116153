"""Memory and CPU time of `factory predict` on few rows and on many, as JSON on stdout.

    python benchmarks/predict_memory.py BUNDLE [--rows 1000 200000] [--format csv]

Each size runs in a process of its own; the peak is what the system counted for that process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WORDS = (
    *("the", "film", "was", "good", "bad", "not", "very", "fine", "a"),
    *("story", "plot", "actor", "scene", "moving", "dull"),
)


def write_input(path: Path, rows: int, column: str) -> None:
    """Texts of 3 to 30 words, the same for the same number of rows."""
    draw = random.Random(1)
    with path.open("w", encoding="utf-8") as file:
        file.write(f"id,{column}\n")
        for number in range(rows):
            file.write(f"{number},{' '.join(draw.choices(WORDS, k=draw.randint(3, 30)))}\n")


def measure(bundle: Path, rows: int, format_name: str, folder: Path) -> dict[str, Any]:
    """One run: seconds, CPU seconds and peak memory."""
    source, output = folder / f"{rows}.csv", folder / f"{rows}-out.{format_name}"
    write_input(source, rows, "text")
    command = ["predict", str(bundle), "--input", str(source), "--output", str(output)]
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "factory", *command, "--text", "text", "--quiet"],
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"factory predict failed on {rows} rows")
    return {
        "rows": rows,
        "seconds": round(time.monotonic() - begin, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_megabytes": round(usage.ru_maxrss / 1024, 1),
        "input_megabytes": round(source.stat().st_size / 1e6, 2),
    }


def main() -> None:
    """Measure every size asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 200_000])
    parser.add_argument("--format", default="csv", choices=["csv", "tsv", "jsonl", "parquet"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            measure(options.bundle, rows, options.format, Path(folder)) for rows in options.rows
        ]
    print(json.dumps({"bundle": options.bundle.name, "output": options.format, "runs": runs}))


if __name__ == "__main__":
    main()
