"""Bundles of a few kilobytes for the examples, texts that go wrong elsewhere, right answers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from factory.bundle.assemble import BundleParts, copy_files, make_manifest, ship_only
from factory.data.dataset import Dataset, Split
from factory.evaluation.thresholds import Thresholds
from factory.export.forms import FormSource, write_forms
from factory.export.onnx import export_onnx
from factory.models.classifier import TorchClassifier
from factory.recipe.file import parse_recipe
from helpers.minimal_recipe import recipe_tree
from helpers.pipeline_run import ROOT
from helpers.tiny_models import (
    LABELS,
    VOCABULARY,
    tiny_bert,
    tiny_dataset,
    tiny_regression,
    tiny_tokenizer,
)
from serving.bundle import write_manifest
from serving.predictor import Prediction, Predictor

EXAMPLES = ROOT / "examples" / "edge"
MAX_LENGTH = 48
SIGMA, FINAL_SIGMA = "\N{GREEK SMALL LETTER SIGMA}", "\N{GREEK SMALL LETTER FINAL SIGMA}"
RARE = "\U00020bb7"  # an ideograph beyond 16 bits
PIECES = (
    *VOCABULARY,
    *"漢字日本한국어😀ßфж",
    *("cafe", "naive", "istanbul", "##한", RARE),
    *(SIGMA, FINAL_SIGMA, f"##{SIGMA}", f"##{FINAL_SIGMA}"),
)
ATOL = 1e-3

TEXTS = (
    "thanks, my parcel was great",
    "Café NAÏVE, a résumé",
    "Cafe\u0301 with the accent as a character of its own",
    "漢字 日本語の文 lamp",
    f"a{RARE}b \U0002a6d6{RARE}",
    "한국어 문장",
    "😀 love it 👩\u200d👩\u200d👧 ❤️",
    "İstanbul ıß Straße",
    f"a{SIGMA.upper()} {SIGMA.upper()}a{SIGMA}",
    "never\u00a0late\u3000broken\u200bawful\r\nrefund",
    "a [SEP] of the shop and a [MASK]",
    "don't!? (x) $5.00 — “why” … #1",
    "a" * 120,
    "",
    " ".join(["parcel late awful shoe"] * 40),
)
# What the tokenizers in JavaScript read otherwise; our own example makes up for it.
OTHERWISE_IN_JAVASCRIPT = (SIGMA.upper(), RARE)
_LONG, _LONGER = " ".join(["lamp is late"] * 14), " ".join(["the shoe was great"] * 14)
PAIRS = (
    ("thanks", "Café, 漢字 😀"),
    ("", "never"),
    ("a shoe", _LONGER),
    (_LONGER, "a shoe"),
    (_LONG, _LONGER),
    (_LONGER, _LONG),
    (_LONGER, _LONGER),
    (" ".join("a" * 22), " ".join("b" * 23)),
    (" ".join("a" * 23), " ".join("b" * 23)),
    (" ".join("a" * 24), " ".join("b" * 23)),
)


@dataclass(frozen=True, slots=True)
class Edge:
    """A bundle, inputs for it, and what the server's code answers to them."""

    bundle: Path
    inputs: Sequence[Any]

    def expected(self, file: str | None = None) -> list[dict[str, Any]]:
        """Labels and scores by the Python runtime, of another file of the bundle where asked."""
        manifest = self.bundle / "manifest.json"
        content = manifest.read_bytes()
        if file is not None:
            changed = json.loads(content)
            changed["model"]["file"] = file
            manifest.write_text(json.dumps(changed), encoding="utf-8")
        try:
            predictor = Predictor.open(self.bundle)
        finally:
            manifest.write_bytes(content)
        predictions = [predictor.predict([item])[0] for item in self.inputs]
        return [_answer(predictor, prediction) for prediction in predictions]

    def arguments(self) -> list[str]:
        """The inputs as the command lines of the examples take them."""
        return [item if isinstance(item, str) else "\t".join(item) for item in self.inputs]


def _answer(predictor: Predictor, prediction: Prediction) -> dict[str, Any]:
    labels, scores = predictor.labels, prediction.scores
    label: Any = labels[max(range(len(labels)), key=scores.__getitem__)]
    if prediction.applies is not None:
        label = [name for name, yes in zip(labels, prediction.applies, strict=True) if yes]
    return {"label": label, "scores": dict(zip(labels, scores, strict=True))}


def write_edge_bundle(directory: Path, kind: str, exported: Path, student: Path) -> Edge:
    """Assemble a bundle of the exported student: its fp32 file, and int8-static as the served."""
    directory.mkdir()
    static = exported.with_name("int8-static.onnx")
    copy_files(directory, student, {"fp32": exported, "int8-static": static})
    file = ship_only(directory, "int8-static")
    parts = edge_parts(kind)
    write_manifest(directory, make_manifest(directory, parts, "int8-static", file))
    paired = parts.dataset.train.text_pairs is not None
    return Edge(directory, PAIRS if paired else TEXTS)


def edge_parts(kind: str) -> BundleParts:
    """Recipe, data and thresholds of a bundle of this kind."""
    dataset = _dataset(kind)
    recipe = recipe_tree(
        {"name": f"edge-{kind}", "data.max_length": MAX_LENGTH, "data.task": dataset.task}
    )
    return BundleParts(
        parse_recipe(recipe),
        version="0123456789ab",
        dataset=dataset,
        lineage={},
        thresholds=Thresholds((0.4, 0.5, 0.6), "set by hand") if kind == "multilabel" else None,
    )


def _dataset(kind: str) -> Dataset:
    plain = tiny_dataset(3, 3)
    if kind == "regression":
        return tiny_regression(3, 3)
    if kind == "multilabel":
        return Dataset("multilabel", LABELS, _lists(plain.train), _lists(plain.dev), None)
    if kind == "pair":
        return replace(plain, train=_paired(plain.train), dev=_paired(plain.dev))
    return plain


def _paired(split: Split) -> Split:
    return Split(split.name, split.texts, split.texts, split.targets)


def _lists(split: Split) -> Split:
    return Split(split.name, split.texts, None, [(int(target),) for target in split.targets])


def export_edge_student(directory: Path, labels: Sequence[str]) -> tuple[Path, Path]:
    """A student whose scores tell every token and text apart, as a folder and as ONNX.

    Its int8-static form lies beside the ONNX file.
    """
    model = tiny_bert(labels, vocab_size=len(PIECES), max_position_embeddings=64)
    classifier = TorchClassifier(model, tiny_tokenizer(PIECES), MAX_LENGTH)
    with torch.no_grad():
        model.classifier.weight.mul_(8.0)  # scores far from one another, and from 1e-3
        model.classifier.bias.sub_(torch.from_numpy(classifier.logits(TEXTS).mean(axis=0)))
    folder = directory / "student"
    model.save_pretrained(folder)
    tiny_tokenizer(PIECES).save_pretrained(folder)
    exported = directory / "student.onnx"
    export_onnx(folder, exported, opset=17)
    texts = Split("train", list(TEXTS), None, [0] * len(TEXTS))
    source = FormSource(exported, classifier, texts, len(TEXTS), 0.8, seven_bits=True)
    write_forms(directory, ["int8-static"], source)
    return folder, exported


def check_answers(
    found: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]
) -> None:
    """Same labels in the same order, scores within 1e-3."""
    assert len(found) == len(expected)
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert list(one["scores"]) == list(other["scores"]), number
        assert one["scores"] == pytest.approx(other["scores"], abs=ATOL), number
        assert one["label"] == other["label"], number


def run_example(*command: object, code: int = 0, **environment: str) -> str:
    """The stdout of an example that must end with the code, or its stderr when that is not 0."""
    result = subprocess.run(
        [*map(str, command)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == code, result.stderr
    return result.stdout if code == 0 else result.stderr


def json_lines(text: str) -> list[dict[str, Any]]:
    """The answers a program printed."""
    return [json.loads(line) for line in text.splitlines()]
