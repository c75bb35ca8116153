"""The whole line on real data: teacher, student, undistilled students, ONNX fp32 and int8.

    FACTORY_REAL_DATA=... python benchmarks/whole_line.py [--sets banking77 ...] [--store runs]

Runs recipes/<set>.toml twice (baseline from random weights, then from the student's own start;
everything else is reused), prints a table per set and writes benchmarks/whole_line.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from distillation import data_files, run_recipe
from real_data import real_data_folder

from factory.planning import make_plan
from factory.recipe.file import load_recipe
from factory.recipe.recipe import Recipe
from factory.store import ARTIFACT_FILE, Store, read_json

ROOT = Path(__file__).resolve().parent.parent
SETS = ("sst2-sentences", "banking77")
RESULT_FILE = Path(__file__).with_suffix(".json")
ROWS = {
    "teacher": "teacher (torch)",
    "student": "distilled student (torch)",
    "baseline_random": "same student, hard labels only, random start",
    "baseline_same": "same student, hard labels only, the distilled student's start",
    "fp32": "distilled student, ONNX fp32",
    "int8-static": "distilled student, ONNX int8",
}


def main() -> None:
    """Run every set asked for and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--store", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    real_data = real_data_folder()
    results = json.loads(RESULT_FILE.read_text()) if RESULT_FILE.is_file() else {}
    for name in arguments.sets:
        files = data_files(name, real_data, arguments.store.absolute())
        results[name] = run_set(name, files, arguments.store)
        print_set(name, results[name])
        RESULT_FILE.write_text(json.dumps(results, indent=2) + "\n")


def run_set(name: str, files: dict[str, Path], store: Path) -> dict[str, Any]:
    """Both runs of one recipe, merged into one result."""
    recipe_file = ROOT / "recipes" / f"{name}.toml"
    overrides = [f"data.{key}={file}" for key, file in files.items()]
    result: dict[str, Any] = {}
    for start in ("random", "same"):
        settings = [*overrides, f"distill.baseline={start}", "gate.min_gain=-1.0"]
        bundle = run_recipe(recipe_file, settings, store)
        manifest = read_json(bundle / "manifest.json")
        recipe = load_recipe(recipe_file, settings)
        if not result:
            result = of_manifest(manifest)
        baseline = manifest["scores"]["baseline"]
        result["scores"][f"baseline_{start}"] = baseline
        result["size_bytes"][f"baseline_{start}"] = manifest["measurements"]["size_bytes"][
            "baseline"
        ]
        seconds = stage_seconds(recipe, recipe_file.parent, store)
        seconds[f"baseline_{start}"] = seconds.pop("baseline")
        result["stage_seconds"] = {**seconds, **result["stage_seconds"]}
    return result


def of_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """What the table needs, without paths."""
    measurements, rows = manifest["measurements"], manifest["data"]["rows"]
    return {
        "scores": {
            model: {split: {"rows": rows[split], **found} for split, found in splits.items()}
            for model, splits in manifest["scores"].items()
            if model != "baseline"
        },
        "size_bytes": {k: v for k, v in measurements["size_bytes"].items() if k != "baseline"},
        "latency": measurements["latency"],
        "latency_conditions": measurements["latency_conditions"],
        "label_agreement_with_fp32": measurements["agreement"],
        "versions": manifest["versions"],
        "stage_seconds": {},
    }


def stage_seconds(recipe: Recipe, base_directory: Path, store: Path) -> dict[str, float]:
    """Wall time of each stage, as recorded when it was made."""
    keys = make_plan(recipe, base_directory).keys
    return {
        stage: read_json(Store(store).directory(key) / ARTIFACT_FILE)["seconds"]
        for stage, key in keys.items()
    }


def print_set(name: str, result: dict[str, Any]) -> None:
    """One markdown table per split, and the stage times."""
    for split in result["scores"]["teacher"]:
        rows = result["scores"]["teacher"][split]["rows"]
        teacher = result["scores"]["teacher"][split]["accuracy"]["value"]
        print(f"\n### {name}, {split} ({rows} rows)\n")
        print(
            "| model | accuracy (95 %) | retention | size | p50, batch 1 |\n|---|---|---|---|---|"
        )
        for model, label in ROWS.items():
            score = result["scores"][model][split]["accuracy"]
            latency = result["latency"].get(model)
            p50 = f"{latency['p50_ms']:.2f} ms" if latency else "-"
            print(
                f"| {label} | {score['value']:.4f} ({score['low']:.4f} to {score['high']:.4f}) | "
                f"{100 * score['value'] / teacher:.1f} % | "
                f"{result['size_bytes'][model] / 1e6:.1f} MB | {p50} |"
            )
        agreement = result["label_agreement_with_fp32"]["int8-static"][split]
        print(f"\nint8 gives fp32's label on {100 * agreement:.1f} % of {split}.")
    seconds = ", ".join(
        f"{stage} {value:.0f} s" for stage, value in result["stage_seconds"].items()
    )
    print(f"\nStages: {seconds}.\nLatency: {result['latency_conditions']}.")


if __name__ == "__main__":
    main()
