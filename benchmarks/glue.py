"""The paper's GLUE table with our columns, from recipes/glue through the command line.

    python benchmarks/glue.py [--tasks mrpc rte ...] [--recipes paper ours] [--store runs]
        [--teacher MODEL] [--set KEY.PATH=VALUE ...]

The data comes from the hub; where FACTORY_REAL_DATA names a folder that has the task's files, from
there. Prints the table of everything measured so far and writes benchmarks/glue.json. A task whose
gate or run fails is told and does not stop the others.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glue_folder import LOCAL_TASKS, write_glue_folder

from factory.errors import EXIT_GATE, FactoryError
from factory.planning import make_plan
from factory.recipe.file import load_recipe
from factory.store import ARTIFACT_FILE, Store, read_json, write_json

ROOT = Path(__file__).resolve().parent.parent
RESULT_FILE = Path(__file__).with_suffix(".json")
KINDS = ("paper", "ours")
# Table 1's columns: the task whose recipe fills it, and the split of that recipe.
COLUMNS = {
    "MNLI-m": ("mnli", "dev"),
    "MNLI-mm": ("mnli", "test"),
    "QQP": ("qqp", "dev"),
    "QNLI": ("qnli", "dev"),
    "SST-2": ("sst2", "dev"),
    "CoLA": ("cola", "dev"),
    "STS-B": ("stsb", "dev"),
    "MRPC": ("mrpc", "dev"),
    "RTE": ("rte", "dev"),
}
# Table 1's metrics; a task not named here has accuracy
METRICS = {"qqp": "f1", "mrpc": "f1", "cola": "mcc", "stsb": "spearman"}
TASKS = tuple(dict.fromkeys(task for task, _ in COLUMNS.values()))
# Published figures in the order of COLUMNS: where they were read, and on which split.
CITED = {
    "BERT-base, the paper's teacher (paper, Table 1, test)": (
        "83.9 83.4 71.1 90.9 93.4 52.8 85.2 87.5 67.0"
    ),
    "TinyBERT4 (paper, Table 1, test)": "82.5 81.8 71.3 87.7 92.6 44.1 80.4 86.4 66.6",
    "TinyBERT4, released checkpoints (PaddleNLP's OFA README, dev)": (
        "82.56 82.94 87.51 87.46 92.34 49.61 86.31 89.98 65.34"
    ),
}

Results = dict[str, dict[str, Any]]


def main() -> None:
    """Run every task asked for and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--recipes", nargs="+", default=("ours",), choices=KINDS)
    parser.add_argument("--store", type=Path, default=Path("runs"))
    parser.add_argument("--teacher", help="instead of the recipe's; fine-tuned all the same")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--output", type=Path, default=RESULT_FILE, help="JSON, added to")
    arguments = parser.parse_args()
    overrides = list(arguments.overrides)
    if arguments.teacher:
        overrides.insert(0, f"teacher.model={arguments.teacher}")
    results: Results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for kind in arguments.recipes:
        for task in arguments.tasks:
            result = run_task(task, kind, overrides, arguments.store, arguments.device)
            keep(results.setdefault(kind, {}), task, result)
            write_json(arguments.output, results)
            print_table(results)


def keep(tasks: dict[str, Any], task: str, result: dict[str, Any]) -> None:
    """Add a result; a run that measured nothing does not take the place of one that did."""
    if "scores" in result or "scores" not in tasks.get(task, {}):
        tasks[task] = result


def run_task(
    task: str, kind: str, overrides: list[str], store: Path, device: str
) -> dict[str, Any]:
    """One `factory run`, and what it measured before it ended, however it ended."""
    recipe_file = ROOT / "recipes" / "glue" / f"{task}-{kind}.toml"
    folder = local_data(task, store)
    settings = [*overrides] if folder is None else [f"data.hub={folder}", *overrides]
    command = [sys.executable, "-m", "factory", "run", str(recipe_file), "--store", str(store)]
    command += ["--device", device]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    words = {0: "gate passed", EXIT_GATE: "gate failed"}
    return {
        "outcome": words.get(done.returncode, f"error, exit code {done.returncode}"),
        "data": "hub" if folder is None else "local folder",
        "overrides": [setting for setting in overrides if "=/" not in setting],
        **measured(recipe_file, settings, Store(store), METRICS.get(task, "accuracy")),
    }


def local_data(task: str, store: Path) -> Path | None:
    """The task's files of FACTORY_REAL_DATA as a folder in the hub's layout, if it has them."""
    real_data = os.environ.get("FACTORY_REAL_DATA")
    if not real_data or task not in LOCAL_TASKS or not (Path(real_data) / task).is_dir():
        return None
    return write_glue_folder(Path(real_data) / task, task, (store / f"glue-{task}").absolute())


def measured(recipe_file: Path, settings: list[str], store: Store, metric: str) -> dict[str, Any]:
    """Scores of teacher and student from the store; nothing when the run ended before them.

    Args:
        metric: the table's; where the evaluation has it not, the recipe's stands in, by its name.
    """
    try:
        recipe = load_recipe(recipe_file, settings)
        keys = make_plan(recipe, recipe_file.parent).keys
        facts = store.load(keys["evaluate"]).facts
    except FactoryError:
        return {}
    if metric not in facts["student"]["dev"]["scores"]:
        metric = recipe.metric
    made = [key for key in keys.values() if store.status(key) == "cached"]
    return {
        "metric": metric,
        "teacher_model": Path(recipe.teacher.model).name,
        "scores": {
            model: {
                split: {"rows": found["rows"], **found["scores"][metric]}
                for split, found in facts[model].items()
            }
            for model in ("teacher", "student")
        },
        "stage_seconds": {
            key.stage: read_json(store.directory(key) / ARTIFACT_FILE)["seconds"] for key in made
        },
    }


def print_table(results: Results) -> None:
    """The paper's table with a teacher, a student and their ratio for each kind of recipe."""
    print("\n| | " + " | ".join(COLUMNS) + " | mean |\n|---" + "|---" * (len(COLUMNS) + 1) + "|")
    for label, figures in CITED.items():
        print_row(label, dict(zip(COLUMNS, map(float, figures.split()), strict=True)))
    for kind, tasks in results.items():
        teacher, student = (column_values(tasks, model) for model in ("teacher", "student"))
        print_row(f"our teacher, recipes {kind} (dev)", teacher)
        print_row(f"our student, recipes {kind} (dev)", student)
        kept = {name: 100 * student[name] / teacher[name] for name in student if teacher[name] > 0}
        print_row("kept, % of the teacher", kept)
    print("\nAccuracy; F1 for QQP and MRPC, Matthews correlation for CoLA, Spearman for STS-B.")
    print("The means are over all nine columns. Test figures are the GLUE server's.")
    for kind, tasks in results.items():
        for task, result in tasks.items():
            if result.get("metric", METRICS.get(task, "accuracy")) != METRICS.get(task, "accuracy"):
                print(f"Not the table's metric: {task} of ours is {result['metric']}.")
            print(f"- {task}, {kind}: {describe(result)}")


def column_values(tasks: Mapping[str, Any], model: str) -> dict[str, float]:
    """Measured values in percent by column; columns without a measurement are left out."""
    values = {}
    for name, (task, split) in COLUMNS.items():
        score = tasks.get(task, {}).get("scores", {}).get(model, {}).get(split)
        if score is not None:
            values[name] = 100 * score["value"]
    return values


def print_row(label: str, values: Mapping[str, float]) -> None:
    """One line; the mean stands only where every column does."""
    cells = [f"{values[name]:.1f}" if name in values else "-" for name in COLUMNS]
    whole = len(values) == len(COLUMNS)
    cells.append(f"{sum(values.values()) / len(values):.1f}" if whole else "-")
    print(f"| {label} | " + " | ".join(cells) + " |")


def describe(result: Mapping[str, Any]) -> str:
    """How a task's figures came about."""
    if "scores" not in result:
        return f"{result['outcome']}; nothing was measured"
    seconds = sum(result["stage_seconds"].values())
    dev = result["scores"]["student"]["dev"]
    parts = [
        result["outcome"],
        f"teacher {result['teacher_model']}",
        f"data from the {result['data']}",
        f"{result['metric']} {dev['value']:.3f} ({dev['low']:.3f} to {dev['high']:.3f}) on "
        f"{dev['rows']} rows",
        f"{seconds:.0f} s",
        *([f"with {', '.join(result['overrides'])}"] if result["overrides"] else []),
    ]
    return ", ".join(parts)


if __name__ == "__main__":
    main()
