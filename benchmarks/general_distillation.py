"""A task student with and without general distillation before it.

    FACTORY_REAL_DATA=... python benchmarks/general_distillation.py [--tokens 150000] [--store runs]

Runs recipes/banking77.toml (one epoch of each phase, so that the start matters) from three starts:
random weights, the start derived from the fine-tuned teacher, and a general student, which is
derived from the teacher before its fine-tuning and distilled over the first tokens of
corpora/us-gov-web.txt.gz. Prints a table and writes general_distillation.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from distillation import data_files, run_recipe, stage_artifacts
from real_data import real_data_folder

from factory.recipe_file import load_recipe
from factory.store import read_json

ROOT = Path(__file__).resolve().parent.parent
SET = "banking77"
CORPUS = "corpora/us-gov-web.txt.gz"
STARTS = ("random", "general", "teacher")
RESULT_FILE = Path(__file__).with_suffix(".json")


def main() -> None:
    """Run from every start and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=150_000)
    parser.add_argument("--store", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    real_data = real_data_folder()
    data = real_data
    files = data_files(SET, data, arguments.store.absolute())
    settings = [f"data.{key}={file}" for key, file in files.items()]
    settings += ["distill.intermediate.epochs=1.0", "distill.prediction.epochs=1.0"]
    settings += ["gate.min_retention=0.01", "quantize.variants=['fp32']"]
    recipe_file = without_baseline(arguments.store, SET)
    results: dict[str, Any] = {"tokens": arguments.tokens, "starts": {}}
    for start in STARTS:
        more = [f"student.start={start}"]
        if start == "general":
            more += [f"general.corpus={data / CORPUS}", f"general.max_tokens={arguments.tokens}"]
            more += ["general.documents=blank_lines"]
        results["starts"][start] = run_start(recipe_file, [*settings, *more], arguments.store)
        RESULT_FILE.write_text(json.dumps(results, indent=2) + "\n")
    print_table(results)


def without_baseline(store: Path, name: str) -> Path:
    """A copy of a set's recipe that trains no undistilled student and names no unlabelled text."""
    text = (ROOT / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    left_out = ("min_gain", "baseline", "unlabelled")
    lines = [line for line in text.splitlines() if not line.startswith(left_out)]
    file = store / "benchmark-data" / name / "without-baseline.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def run_start(recipe_file: Path, settings: list[str], store: Path) -> dict[str, Any]:
    """Scores of one start, and what its general distillation did."""
    manifest = read_json(run_recipe(recipe_file, settings, store) / "manifest.json")
    artifacts = stage_artifacts(load_recipe(recipe_file, settings), recipe_file.parent, store)
    scores = {
        model: manifest["scores"][model]["test"]["accuracy"] for model in ("teacher", "student")
    }
    general = artifacts.get("general")
    return {
        **scores,
        "steps": artifacts["distill"]["facts"]["steps"],
        "general": None if general is None else {**general["facts"], "seconds": general["seconds"]},
    }


def print_table(results: dict[str, Any]) -> None:
    """One line per start."""
    print(f"| start | {SET}, test | kept |\n|---|---|---|")
    for start, found in results["starts"].items():
        student, teacher = found["student"]["value"], found["teacher"]["value"]
        print(f"| {start} | {student:.4f} | {student / teacher:.1%} |")


if __name__ == "__main__":
    main()
