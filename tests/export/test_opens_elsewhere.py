"""A bundle's files in other people's hands: optimum finds both forms and gives the same logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny_models import LABELS, tiny_split

from factory.bundle.assemble import copy_files, ship_only
from factory.export.forms import FormName
from factory.export.parity import open_session, session_logits
from factory.models.encoding import encode_inputs


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory, forms: Any) -> Path:
    """The folder a bundle ships, int8-static chosen."""
    directory = tmp_path_factory.mktemp("layout")
    files: dict[FormName, Path] = {name: forms.file(name) for name in ("fp32", "int8-static")}
    copy_files(directory, forms.folder / "model", files)
    ship_only(directory, "int8-static")
    return directory


@pytest.mark.parametrize(
    ("where", "file"),
    [
        ({}, "onnx/model.onnx"),
        ({"file_name": "model_quantized.onnx"}, "onnx/model_quantized.onnx"),
        ({"subfolder": "onnx", "file_name": "model.onnx"}, "onnx/model.onnx"),
    ],
)
def test_optimum_opens_the_folder(
    layout: Path, forms: Any, where: dict[str, str], file: str
) -> None:
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer

    texts = tiny_split("dev", 12, seed=6).texts
    model = ORTModelForSequenceClassification.from_pretrained(layout, **where)
    tokenizer = AutoTokenizer.from_pretrained(layout)
    found = np.concatenate([model(**tokenizer(text, return_tensors="np")).logits for text in texts])
    rows = encode_inputs(forms.source.student.tokenizer, texts, 24)
    expected = session_logits(open_session(layout / file), rows)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [model.config.id2label[number] for number in range(len(LABELS))] == list(LABELS)


def test_optimums_pipeline_answers_with_the_labels(layout: Path, forms: Any) -> None:
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer, pipeline

    texts = tiny_split("dev", 12, seed=7).texts
    classify = pipeline(
        "text-classification",
        model=ORTModelForSequenceClassification.from_pretrained(layout),
        tokenizer=AutoTokenizer.from_pretrained(layout),
    )
    logits = forms.source.student.logits(texts)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for answer, share in zip(classify(texts), shares, strict=True):
        assert answer["label"] == LABELS[int(share.argmax())]
        assert answer["score"] == pytest.approx(float(share.max()), abs=1e-5)
