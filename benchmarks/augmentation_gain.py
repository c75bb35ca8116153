"""What augmentation gives a student for the same number of steps, over several seeds.

    FACTORY_REAL_DATA=... python benchmarks/augmentation_gain.py [--sets mrpc] [--seeds 1 2 3]

Three small sets: MRPC, banking77 with the first 10 rows of each class, SST-2 with its first 1,000
whole sentences. The teacher of each is fine-tuned on just these rows, once. Without augmentation
the student passes over the rows many times, with it over the rows and their variants fewer times:
equal steps, equal everything else. For SST-2 a third arm learns on as many unlabelled sentences of
film reviews instead of variants. Scores are those of the students in torch; the spread is the
standard deviation over the seeds. Prints a table and writes augmentation_gain.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillation import REVIEWS, ROOT, find, sentences
from real_data import real_data_folder

from factory.data.dataset import read_dataset
from factory.evaluation.evaluate import evaluate
from factory.models.classifier import load_torch_classifier
from factory.pipeline import run
from factory.planning import make_plan
from factory.recipe.file import load_recipe
from factory.recipe.recipe import Recipe
from factory.runtime.environment import keep_freed_memory
from factory.stages.stage import model_stages
from factory.store import Store

RESULT_FILE = Path(__file__).with_suffix(".json")
UNLABELLED = "with unlabelled sentences"


@dataclass(frozen=True, slots=True)
class Trial:
    """How one set is cut and how long its models train.

    Args:
        rows: training rows to keep from the beginning; None keeps all.
        rows_per_class: training rows to keep of each class; None keeps all.
        steps: of the intermediate and of the prediction phase.
        copies: variants drawn of each row.
        settings: for the teacher.
    """

    rows: int | None
    rows_per_class: int | None
    steps: tuple[int, int]
    copies: int
    split: str
    settings: tuple[str, ...] = ()


TRIALS = {
    "mrpc": Trial(None, None, (100, 60), 4, "dev"),
    "banking77": Trial(None, 10, (200, 150), 10, "test", ("teacher.epochs=12.0",)),
    "sst2-sentences": Trial(1_000, None, (150, 120), 10, "dev", ("teacher.epochs=4.0",)),
}


def main() -> None:
    """Run every set asked for and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=tuple(TRIALS), choices=tuple(TRIALS))
    parser.add_argument("--seeds", nargs="+", type=int, default=(1, 2, 3))
    parser.add_argument(
        "--augment",
        action="append",
        metavar="KEY=VALUE",
        help="settings of section [augment]; unset: words from the teacher's embeddings",
    )
    parser.add_argument("--arms", nargs="+", help="only these arms of each set, by name")
    parser.add_argument("--store", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    real_data = real_data_folder()
    keep_freed_memory()
    settings = tuple(f"augment.{one}" for one in arguments.augment or ())
    for name in arguments.sets:
        found = run_trial(name, TRIALS[name], real_data, settings, arguments)
        results = json.loads(RESULT_FILE.read_text()) if RESULT_FILE.is_file() else {}
        results.setdefault(name, {}).update(found)
        RESULT_FILE.write_text(json.dumps(results, indent=2) + "\n")
    print_table(json.loads(RESULT_FILE.read_text()))


def run_trial(
    name: str,
    trial: Trial,
    data: Path,
    settings: tuple[str, ...],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Scores of one set with and without variants."""
    files = cut_files(name, trial, data, arguments.store.absolute())
    recipe_file = without_baseline(arguments.store, name)
    common = [f"data.{split}={file}" for split, file in files.items()]
    common += [*trial.settings, "gate.min_retention=0.01"]
    variants = [f"augment.copies={trial.copies}", *settings]
    arms = {"without": [], "with " + (" ".join(settings) or "embeddings"): variants}
    if name == "sst2-sentences":
        limit = trial.copies * (trial.rows or 0)
        text = write_unlabelled(data, arguments.store.absolute())
        arms[UNLABELLED] = [f"data.unlabelled={text}", f"data.unlabelled_limit={limit}"]
    results = {}
    for arm, more in arms.items():
        if arguments.arms and arm not in arguments.arms:
            continue
        scores = [
            run_arm(recipe_file, [*common, *more, f"distill.seed={seed}"], trial, arguments.store)
            for seed in arguments.seeds
        ]
        results[arm] = {**scores[0], "scores": [one["score"] for one in scores]}
        del results[arm]["score"]
    return results


def write_unlabelled(data: Path, store: Path) -> Path:
    """Sentences of film reviews, one per line."""
    file = store / "benchmark-data" / "sst2-sentences" / "unlabelled.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(sentences(data / REVIEWS)) + "\n", encoding="utf-8")
    return file


def without_baseline(store: Path, name: str) -> Path:
    """A copy of a set's recipe that trains no undistilled student and names no unlabelled text."""
    text = (ROOT / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    left_out = ("min_gain", "baseline", "unlabelled")
    lines = [line for line in text.splitlines() if not line.startswith(left_out)]
    file = store / "benchmark-data" / name / "without-baseline.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def run_arm(recipe_file: Path, settings: list[str], trial: Trial, store: Path) -> dict[str, Any]:
    """One student; what is in the store already is taken from there."""
    base, place = recipe_file.parent, Store(store)
    recipe = load_recipe(recipe_file, settings)
    keys = make_plan(recipe, base).keys
    dataset = read_dataset(run(recipe, base, place, "cpu", until="data"))
    rows, made = len(dataset.train), 0
    for stage, fact in (("augment", "examples"), ("unlabelled", "rows")):
        if stage in keys:
            run(recipe, base, place, "cpu", until=stage)
            made += place.load(keys[stage]).facts[fact]
    rows += made
    recipe = load_recipe(recipe_file, [*settings, *epochs_for(trial.steps, rows, recipe)])
    run(recipe, base, place, "cpu", until="distill")
    keys = make_plan(recipe, base).keys
    artifacts = {model: place.load(keys[stage]) for model, stage in model_stages(recipe).items()}
    split = dataset.dev if trial.split == "dev" else dataset.test
    assert split is not None, "the set has this split"
    scores = {
        model: evaluate(
            load_torch_classifier(artifact.directory / "model", recipe.data.max_length),
            split,
            dataset.labels,
        )
        .scores[recipe.metric]
        .value
        for model, artifact in artifacts.items()
    }
    return {
        "metric": recipe.metric,
        "split": split.name,
        "rows": len(dataset.train),
        "variants": made,
        "steps": list(trial.steps),
        "teacher": scores["teacher"],
        "score": scores["student"],
    }


def epochs_for(steps: tuple[int, int], rows: int, recipe: Recipe) -> list[str]:
    """Settings that give the phases so many steps over so many rows."""
    per_epoch = math.ceil(rows / recipe.distill.batch_size)
    phases = ("intermediate", "prediction")
    return [
        f"distill.{phase}.epochs={count / per_epoch!r}"
        for phase, count in zip(phases, steps, strict=True)
    ]


def cut_files(name: str, trial: Trial, data: Path, store: Path) -> dict[str, Path]:
    """The set's files, the training rows cut as the trial says."""
    splits = ("train", "dev", "test")
    files = {split: found for split in splits if (found := find(data, name, split))}
    header, *lines = files["train"].read_text(encoding="utf-8").rstrip("\n").split("\n")
    if trial.rows is not None:
        lines = lines[: trial.rows]
    if trial.rows_per_class is not None:
        seen: Counter[str] = Counter()
        kept = []
        for line in lines:
            label = line.rpartition("\t")[2]
            seen[label] += 1
            if seen[label] <= trial.rows_per_class:
                kept.append(line)
        lines = kept
    files["train"] = store / "benchmark-data" / name / "train-cut.tsv"
    files["train"].parent.mkdir(parents=True, exist_ok=True)
    files["train"].write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return files


def print_table(results: dict[str, Any]) -> None:
    """One line per set and arm."""
    print("| set | rows | variants | steps | teacher | students, mean and spread | gain |")
    print("|---|---|---|---|---|---|---|")
    for name, arms in results.items():
        without = statistics.mean(arms["without"]["scores"])
        for arm, found in arms.items():
            mean = statistics.mean(found["scores"])
            spread = f" ± {statistics.stdev(found['scores']):.4f}" if found["scores"][1:] else ""
            gain = "" if arm == "without" else f"{100 * (mean - without):+.1f}"
            steps = " + ".join(map(str, found["steps"]))
            print(
                f"| {name}, {found['split']}, {found['metric']}, {arm} | {found['rows']} "
                f"| {found['variants']} | {steps} | {found['teacher']:.4f} "
                f"| {mean:.4f}{spread} ({len(found['scores'])} seeds) | {gain} |"
            )


if __name__ == "__main__":
    main()
