"""`factory compare` on tiny bundles that run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import Result
from helpers.pipeline_run import factory_here
from helpers.scored_bundle import write_scored_bundle

from factory.bundle.compare import Flips, flips
from factory.bundle.compare_rows import rows_fingerprint
from factory.data.dataset import Dataset, Split, write_dataset
from serving.bundle import Manifest, read_manifest, write_manifest
from serving.predictor import Predictor

TEXTS = [
    "the film was good",
    "bad film",
    "very fine",
    "a not bad film",
    "was it",
    "the the",
    "dull",
]
LABELS = ("negative", "neutral", "positive")


def change(bundle: Path, **changes: Any) -> Manifest:
    """Replace fields of a bundle's manifest."""
    manifest = msgspec.structs.replace(read_manifest(bundle), **changes)
    write_manifest(bundle, manifest)
    return manifest


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two bundles with one network; the second has its labels in another order."""
    old, new = tmp_path / "old", tmp_path / "new"
    write_scored_bundle(old)
    write_scored_bundle(new, {"distill.seed": 7}, labels=("neutral", "negative", "positive"))
    return old, new


def answers(bundle: Path) -> list[str]:
    predictor = Predictor.open(bundle)
    return [predictor.labels[int(row.argmax())] for row in predictor.logits(TEXTS)]


def data_file(folder: Path, labels: list[str]) -> Path:
    file = folder / "rows.tsv"
    rows = [f"{text}\t{label}" for text, label in zip(TEXTS, labels, strict=True)]
    file.write_text("\n".join(["text\tlabel", *rows]) + "\n", encoding="utf-8")
    return file


def call(*arguments: object, code: int = 0) -> Result:
    result = factory_here("compare", *arguments)
    assert result.exit_code == code, result.stderr
    return result


def facts(*arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call(*arguments, "--json").stdout)
    return found


def test_labels_are_matched_by_name(pair: tuple[Path, Path]) -> None:
    old, new = pair
    was, now = answers(old), answers(new)
    assert was != now
    truth = [*was[:4], *now[4:]]
    found = facts(old, new, "--data", data_file(old.parent, truth))
    accuracy = found["metrics"][0]
    rows = len(TEXTS)
    right = [sum(a == t for a, t in zip(got, truth, strict=True)) / rows for got in (was, now)]
    assert (accuracy["old"], accuracy["new"]) == pytest.approx(tuple(right))
    lost = sum(a == t != b for a, b, t in zip(was, now, truth, strict=True))
    gained = sum(b == t != a for a, b, t in zip(was, now, truth, strict=True))
    assert lost + gained > 0
    assert sum(one["lost"] for one in found["flips"]) == lost
    assert sum(one["gained"] for one in found["flips"]) == gained
    alike = sum(a == b for a, b in zip(was, now, strict=True)) / rows
    assert found["agreement"] == pytest.approx(alike)
    assert found["recipe"] == {"distill.seed": {"old": 42, "new": 7}}


def test_a_bundle_equals_itself(pair: tuple[Path, Path]) -> None:
    old, _ = pair
    file = data_file(old.parent, list(answers(old)))
    found = facts(old, old, "--data", file)
    assert all(one["p_value"] == 1.0 and one["difference"] == 0 for one in found["metrics"])
    assert found["agreement"] == 1.0
    assert all(cost["ratio"] == 1.0 for cost in found["costs"].values())
    assert found["recipe"] == {}
    text = call(old, old, "--data", file).stdout
    assert "**accuracy does not differ significantly**" in text
    assert "No row changed from right to wrong or back." in text
    assert text.endswith("## Recipe\n\nNo differences.\n")


def test_markdown_of_costs_flips_and_recipe(pair: tuple[Path, Path]) -> None:
    old, new = pair
    measured = {**read_manifest(old).measurements, "machine": {"processor": "another"}}
    measured["latency"] = {"fp32": {"p50_ms": 2.0, "p95_ms": 2.0, "calls": 1}}
    change(new, measurements=measured)
    text = call(old, new, "--data", data_file(old.parent, answers(old))).stdout
    assert "| latency p50 | 4.00 ms | 2.00 ms | 0.50 |" in text
    assert "different machines or under different conditions" in text
    assert "| class | rows | both right | lost | gained | both wrong |\n|---|---|" in text
    assert "| `distill.seed` | `42` | `7` |" in text


def in_store(bundle: Path, split: Split, made: str) -> None:
    """Put the data stage of a run beside a bundle."""
    change(bundle, lineage={"data": made * 64})
    train = Split("train", ["other"], None, [0])
    dataset = Dataset("classification", LABELS, train, split, None)
    write_dataset(dataset, bundle.parent / f"data-{made * 12}")


def rows(labels: list[str]) -> Split:
    return Split("dev", TEXTS, None, [LABELS.index(label) for label in labels])


def test_without_a_file_the_rows_come_from_the_runs(pair: tuple[Path, Path]) -> None:
    old, new = pair
    truth = rows(answers(old))
    for bundle in pair:
        in_store(bundle, truth, "a")
    found = facts(old, new)
    assert found["metrics"][0]["old"] == 1.0
    assert (found["split"], found["rows"]) == ("dev", len(TEXTS))
    assert found["rows_sha256"] == rows_fingerprint(truth, LABELS)
    assert "no split test" in call(old, new, "--split", "test", code=1).stderr
    call(old, new, "--data", "x.tsv", "--split", "dev", code=2)


def test_runs_on_different_rows_are_not_compared(pair: tuple[Path, Path]) -> None:
    old, new = pair
    in_store(old, rows(answers(old)), "a")
    in_store(new, rows(answers(new)), "b")
    result = call(old, new, code=1)
    assert result.stdout == ""
    assert result.stderr.count("fingerprint") == 2
    assert "--data FILE" in result.stderr
    in_store(new, rows(answers(old)), "c")  # the same rows, from another data stage
    assert facts(old, new)["rows"] == len(TEXTS)


def test_rows_of_one_run_alone_come_with_a_warning(pair: tuple[Path, Path]) -> None:
    old, new = pair
    assert "--data FILE" in call(old, new, code=1).stderr  # no rows at all
    in_store(new, rows(answers(old)), "b")
    change(old, lineage={"data": "c" * 64})
    assert f"{old}: its data stage was not found" in call(old, new).stderr


def test_of_a_store_the_newest_bundle_is_compared(pair: tuple[Path, Path]) -> None:
    old, new = pair
    store = old.parent / "runs"
    write_scored_bundle(store / "bundle-1")
    (store / "bundle-2.partial").mkdir()
    (store / "bundle-2.partial" / "manifest.json").write_text("{}", encoding="utf-8")
    assert facts(store, new, "--data", data_file(old.parent, answers(old)))["rows"] == len(TEXTS)
    (old.parent / "empty").mkdir()
    assert "neither a bundle" in call(old.parent / "empty", new, code=1).stderr


@pytest.mark.parametrize(
    ("other", "words"),
    [({"task": "regression"}, "is regression"), ({"text_pair": True}, "classification of pairs")],
)
def test_bundles_of_different_kinds_are_not_compared(
    tmp_path: Path, other: dict[str, Any], words: str
) -> None:
    write_scored_bundle(tmp_path / "old")
    recipe = {"data.text": ["a", "b"]} if "text_pair" in other else {}
    write_scored_bundle(tmp_path / "new", recipe, **other)
    assert words in call(tmp_path / "old", tmp_path / "new", code=1).stderr


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_other_tasks(tmp_path: Path, task: str) -> None:
    more = {"thresholds": [0.5, 0.2, 0.9]} if task == "multilabel" else {}
    write_scored_bundle(tmp_path / "old", task=task, **more)
    reverse = {"labels": LABELS[::-1], "thresholds": [0.5] * 3} if more else {}
    write_scored_bundle(tmp_path / "new", task=task, **reverse)
    predictor = Predictor.open(tmp_path / "old")
    cells = []
    for answer in predictor.predict(TEXTS):
        names = zip(predictor.labels, answer.applies or (), strict=False)
        cells.append(",".join(name for name, on in names if on) or "")
        if task == "regression":
            cells[-1] = str(answer.logits[0])
    found = facts(tmp_path / "old", tmp_path / "new", "--data", data_file(tmp_path, cells))
    first = found["metrics"][0]
    assert first["metric"] == {"regression": "spearman", "multilabel": "micro_f1"}[task]
    assert first["old"] == pytest.approx(1.0)
    assert bool(found["flips"]) is (task == "multilabel")
    if task == "multilabel":  # each label's answers are those of another column of the network
        assert first["new"] < 1.0
        assert all(one["rows"] == len(TEXTS) for one in found["flips"])


def test_flips_by_hand() -> None:
    targets, old, new = (
        np.array(row) for row in ([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 2], [1, 1, 0, 1, 1, 2])
    )
    assert flips(targets, old, new, ("a", "b", "c", "never")) == [
        Flips("a", 3, 0, 2, 1, 0),
        Flips("c", 1, 1, 0, 0, 0),
        Flips("b", 2, 1, 0, 1, 0),
    ]


def test_rows_fingerprint_depends_on_texts_and_label_names() -> None:
    one = Split("dev", ["a", "b"], None, [0, 1])
    swapped = Split("test", ["a", "b"], None, [1, 0])
    other = Split("dev", ["a", "c"], None, [0, 1])
    assert rows_fingerprint(one, ["x", "y"]) == rows_fingerprint(swapped, ["y", "x"])
    assert rows_fingerprint(one, ["x", "y"]) != rows_fingerprint(one, ["y", "x"])
    assert rows_fingerprint(one, ["x", "y"]) != rows_fingerprint(other, ["x", "y"])
