"""What each student shape costs and keeps: recipes/<set>.toml with student.shape changed.

    FACTORY_REAL_DATA=... python benchmarks/student_shapes.py [--sets banking77] [--store runs]

Same teacher, data, schedule and starts (derived from the teacher) for all shapes; no undistilled
baseline. Each run ships by the recipe's own choice of form; a form is timed beside its teacher, on
texts of 32 tokens, batch 1, one thread, so that the ratio of the two compares across runs. Prints a
table and writes benchmarks/student_shapes.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from distillation import ROOT, SETS, data_files, run_recipe
from real_data import real_data_folder

from factory.recipe.training import STUDENT_SHAPES
from factory.store import read_json

RESULT_FILE = Path(__file__).with_suffix(".json")
TOKENS = 32
SETTINGS = ("gate.min_retention=0.01", "gate.max_quantization_drop=1.0", f"target.tokens={TOKENS}")


def main() -> None:
    """Run every shape on every set asked for and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["banking77"], choices=SETS)
    parser.add_argument("--shapes", nargs="+", default=list(STUDENT_SHAPES), choices=STUDENT_SHAPES)
    parser.add_argument("--store", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    real_data = real_data_folder()
    results: dict[str, Any] = {}
    if RESULT_FILE.is_file():
        results = json.loads(RESULT_FILE.read_text())
    for name in arguments.sets:
        store = arguments.store.absolute()
        files = data_files(name, real_data, store)
        recipe_file = without_baseline(name, store)
        for shape in arguments.shapes:
            settings = [f"data.{key}={file}" for key, file in files.items()]
            settings += [f"student.shape={shape}", *SETTINGS]
            bundle = run_recipe(recipe_file, settings, store)
            results.setdefault(name, {})[shape] = row(read_json(bundle / "manifest.json"))
            RESULT_FILE.write_text(json.dumps(results, indent=2) + "\n")
    print_table(results)


def without_baseline(name: str, store: Path) -> Path:
    """A set's recipe less the undistilled student and the rule that needs it."""
    lines = (ROOT / "recipes" / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(("baseline", "min_gain"))]
    file = store / "benchmark-data" / name / "shapes.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return file


def row(manifest: dict[str, Any]) -> dict[str, Any]:
    """What the table shows of one bundle."""
    found, gate = manifest["measurements"], manifest["recipe"]["gate"]
    split = "test" if "test" in manifest["scores"]["teacher"] else "dev"
    served = manifest["model"]["variant"]
    p50 = {model: latency["p50_ms"] for model, latency in found["latency"].items()}
    return {
        "split": split,
        "metric": gate["metric"],
        "parameters": found["parameters"]["student"],
        "served": served,
        "size_bytes": {form: found["size_bytes"][form] for form in ("fp32", served)},
        "scores": {
            model: manifest["scores"][model][split][gate["metric"]]["value"]
            for model in ("teacher", "student", served)
        },
        "agreement": found["agreement"][served][split],
        "times_faster_than_teacher": {
            form: p50["teacher"] / p50[form] for form in ("student", "fp32", served)
        },
    }


def print_table(results: dict[str, Any]) -> None:
    """One line per set and shape."""
    print(
        "| set | shape | parameters | student | kept | served form | kept | fp32 | served |", end=""
    )
    print(" teacher's time / fp32's | / served form's |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name, shapes in results.items():
        for shape, found in shapes.items():
            scores, form = found["scores"], found["served"]
            faster, sizes = found["times_faster_than_teacher"], found["size_bytes"]
            print(
                f"| {name}, {found['split']} | {shape} | {found['parameters'] / 1e6:.2f}M "
                f"| {scores['student']:.4f} | {scores['student'] / scores['teacher']:.1%} "
                f"| {form} {scores[form]:.4f} | {scores[form] / scores['teacher']:.1%} "
                f"| {sizes['fp32'] / 1e6:.1f} MB | {sizes[form] / 1e6:.1f} MB "
                f"| {faster['fp32']:.1f} | {faster[form]:.1f} |"
            )


if __name__ == "__main__":
    main()
