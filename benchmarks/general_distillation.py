"""A task student with and without general distillation before it.

    FACTORY_REAL_DATA=... python benchmarks/general_distillation.py [--tokens 150000] [--store runs]

Runs recipes/quickstart.toml (one intermediate epoch, so that the start matters, and three of
the prediction phase at 2e-4, so that a random classifier learns something) from four starts:
random weights, the same after general distillation, the start derived from the fine-tuned teacher,
and the one derived from the teacher before its fine-tuning after general distillation. General
distillation passes once over the first tokens of corpora/us-gov-web.txt.gz. Prints a table and
writes general_distillation.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from distillation import run_recipe, stage_artifacts
from real_data import real_data_folder

from factory.recipe.file import load_recipe
from factory.store import read_json

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "quickstart.toml"
CORPUS = "corpora/us-gov-web.txt.gz"
STARTS = {
    "random": ["student.start=random"],
    "random, then general distillation": ["student.start=general", "general.start=random"],
    "derived from the fine-tuned teacher": ["student.start=teacher"],
    "derived from the base teacher, then general distillation": [
        "student.start=general",
        "general.start=teacher",
    ],
}
RESULT_FILE = Path(__file__).with_suffix(".json")


def main() -> None:
    """Run from every start and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=150_000)
    parser.add_argument("--store", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    real_data = real_data_folder()
    settings = ["distill.intermediate.epochs=1.0", "distill.prediction.epochs=3.0"]
    settings += ["distill.prediction.learning_rate=2e-4"]
    settings += ["gate.min_retention=0.01", "quantize.forms=['fp32']"]
    corpus = [f"general.corpus={real_data / CORPUS}", f"general.max_tokens={arguments.tokens}"]
    corpus += ["general.documents=blank_lines"]
    results: dict[str, Any] = {"tokens": arguments.tokens, "starts": {}}
    for start, more in STARTS.items():
        chosen = [*settings, *more, *(corpus if "student.start=general" in more else ())]
        results["starts"][start] = run_start(RECIPE, chosen, arguments.store)
        RESULT_FILE.write_text(json.dumps(results, indent=2) + "\n")
    print_table(results)


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
    print("| start | support messages, test | kept |\n|---|---|---|")
    for start, found in results["starts"].items():
        student, teacher = found["student"]["value"], found["teacher"]["value"]
        print(f"| {start} | {student:.4f} | {student / teacher:.1%} |")


if __name__ == "__main__":
    main()
