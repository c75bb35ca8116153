"""What the student keeps of its teacher, and what it gains over one trained without it.

    FACTORY_REAL_DATA=... python benchmarks/distillation.py [--sets mrpc] [--baselines random same]

Runs recipes/<set>.toml through the command line, prints one table and writes
benchmarks/distillation.json. A gate that fails is reported in the table and stops nothing.

Two sets are prepared, always in the same way. sst2-sentences gets as unlabelled text the sentences
of the film reviews in corpora/ (from 6 to 45 words, each once). goemotions, for the sake of two CPU
cores, learns from its first 10,000 training rows and is scored on its first 1,500 dev and 2,000
test rows.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from real_data import real_data_folder

from factory.planning import make_plan
from factory.recipe.file import load_recipe
from factory.recipe.recipe import Recipe
from factory.store import ARTIFACT_FILE, Store, read_json

ROOT = Path(__file__).resolve().parent.parent
SETS = ("sst2-sentences", "banking77", "mrpc", "stsb", "goemotions")
RESULT_FILE = Path(__file__).with_suffix(".json")
NO_GATE = ("gate.min_retention=0.01", "gate.min_gain=-1.0", "gate.max_quantization_drop=1.0")
REVIEWS = "corpora/imdb-unsup-12k.txt.gz"
EMOTION_ROWS = {"train": 10_000, "dev": 1_500, "test": 2_000}


def main() -> None:
    """Run every set asked for and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--baselines", nargs="+", default=["random"], choices=["random", "same"])
    parser.add_argument("--store", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    real_data = real_data_folder()
    for name in arguments.sets:
        files = data_files(name, real_data, arguments.store.absolute())
        result = run_set(name, files, arguments.baselines, arguments.store)
        results = json.loads(RESULT_FILE.read_text()) if RESULT_FILE.is_file() else {}
        before = results.get(name, {}).get("undistilled", {})
        result["undistilled"] = {**before, **result["undistilled"]}
        results[name] = result
        RESULT_FILE.write_text(json.dumps(results, indent=2) + "\n")
    print_table(json.loads(RESULT_FILE.read_text()))


def data_files(name: str, data: Path, store: Path) -> dict[str, Path]:
    """The files of a set by recipe key, cut or made where the set needs it."""
    work = store / "benchmark-data" / name
    work.mkdir(parents=True, exist_ok=True)
    files = {
        split: found for split in ("train", "dev", "test") if (found := find(data, name, split))
    }
    if name == "sst2-sentences":
        files["unlabelled"] = work / "unlabelled.txt"
        files["unlabelled"].write_text(
            "\n".join(sentences(data / REVIEWS)) + "\n", encoding="utf-8"
        )
    if name == "goemotions":
        for split, file in files.items():
            lines = read_text(file).splitlines()[: EMOTION_ROWS[split] + 1]
            files[split] = work / f"{split}.tsv"
            files[split].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files


def find(data: Path, name: str, split: str) -> Path | None:
    """The file of one split, packed or not."""
    for ending in ("tsv", "tsv.gz"):
        if (file := data / name / f"{split}.{ending}").is_file():
            return file
    return None


def read_text(file: Path) -> str:
    """The text of a file, unpacked if need be."""
    if file.suffix == ".gz":
        return gzip.decompress(file.read_bytes()).decode("utf-8")
    return file.read_text(encoding="utf-8")


def sentences(file: Path) -> list[str]:
    """The sentences of the reviews, from 6 to 45 words, each once, in alphabetical order."""
    text = re.sub(r"<br ?/?>", " ", read_text(file))
    parts = (
        part.strip() for line in text.splitlines() for part in re.split(r"(?<=[.!?])\s+", line)
    )
    return sorted({part for part in parts if 6 <= len(part.split()) <= 45})


def run_set(name: str, files: dict[str, Path], baselines: list[str], store: Path) -> dict[str, Any]:
    """One recipe with each baseline; everything but the baseline is made once."""
    recipe_file = ROOT / "recipes" / f"{name}.toml"
    overrides = [f"data.{key}={file}" for key, file in files.items()]
    result: dict[str, Any] = {"undistilled": {}}
    for baseline in baselines:
        settings = [*overrides, f"distill.baseline={baseline}", *NO_GATE]
        manifest = read_json(run_recipe(recipe_file, settings, store) / "manifest.json")
        recipe = load_recipe(recipe_file, settings)
        metric, split = recipe.metric, recipe.gate.split
        split = "test" if "test" in manifest["scores"]["teacher"] else split
        scores = {
            model: {**found[split][metric], "rows": manifest["data"]["rows"][split]}
            for model, found in manifest["scores"].items()
        }
        artifacts = stage_artifacts(recipe, recipe_file.parent, store)
        models = ("teacher", "student", "fp32", "int8-static")
        result |= {
            "metric": metric,
            "split": split,
            "steps": artifacts["distill"]["facts"]["steps"],
            "stage_seconds": {stage: found["seconds"] for stage, found in artifacts.items()},
            "versions": manifest["versions"],
            **{model: scores[model] for model in models if model in scores},
        }
        result["undistilled"][baseline] = scores["baseline"]
    return result


def run_recipe(recipe_file: Path, settings: list[str], store: Path) -> Path:
    """The bundle of one `factory run`, through the command line."""
    command = [sys.executable, "-m", "factory", "run", str(recipe_file), "--store", str(store)]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip().splitlines()[-1])


def stage_artifacts(recipe: Recipe, base_directory: Path, store: Path) -> dict[str, Any]:
    """What each stage recorded when it was made."""
    keys = make_plan(recipe, base_directory).keys
    return {
        stage: read_json(Store(store).directory(key) / ARTIFACT_FILE) for stage, key in keys.items()
    }


def print_table(results: dict[str, Any]) -> None:
    """One line per set."""
    print("| set | metric | rows | teacher | student | kept | int8 | kept | no teacher | gain |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, result in results.items():
        teacher, student, int8 = (
            result[key]["value"] for key in ("teacher", "student", "int8-static")
        )
        others = result["undistilled"]
        values = ", ".join(f"{key} {found['value']:.4f}" for key, found in others.items())
        gains = ", ".join(f"{100 * (student - found['value']):+.1f}" for found in others.values())
        print(
            f"| {name}, {result['split']} | {result['metric']} | {result['teacher']['rows']} "
            f"| {teacher:.4f} | {student:.4f} | {student / teacher:.1%} "
            f"| {int8:.4f} | {int8 / teacher:.1%} | {values} | {gains} |"
        )


if __name__ == "__main__":
    main()
