"""The student's shape, and the weights that training begins with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_models import LABELS, VOCABULARY, save_tiny, tiny_bert
from transformers import ElectraConfig, ElectraForSequenceClassification

from factory.data.dataset import Dataset
from factory.distill import student as student_module
from factory.distill.student import StudentStart, start_student, student_config
from factory.errors import RecipeError
from factory.models.classifier import TorchClassifier
from factory.models.encoding import EncodedRows, encode_inputs
from factory.models.source import ModelSource
from factory.recipe.training import StudentSettings

SHAPE: dict[str, Any] = {"layers": 2, "hidden": 16, "heads": 4, "intermediate": 32}
# the same shape in the words of `BertConfig`
FIELDS = {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32}


def rows_of(teacher: TorchClassifier, dataset: Dataset) -> EncodedRows:
    return encode_inputs(teacher.tokenizer, dataset.train.inputs(), teacher.max_length)


def start(
    teacher: TorchClassifier,
    dataset: Dataset,
    source: Path | None = None,
    seed: int = 1,
    **changes: Any,
) -> StudentStart:
    settings = StudentSettings(**{**SHAPE, "start": "random", **changes})
    model_source = None if source is None else ModelSource(str(source), None, "test")
    rows = rows_of(teacher, dataset)
    return start_student(settings, model_source, teacher, (2, 3), rows, seed)


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_the_shape_is_the_recipes_and_the_rest_the_teachers() -> None:
    model = tiny_bert(
        hidden_act="relu",
        layer_norm_eps=1e-7,
        max_position_embeddings=30,
        problem_type="single_label_classification",
    )
    config = student_config(model, StudentSettings(**SHAPE, dropout=0.25))
    assert config.model_type == "bert"
    assert (config.num_hidden_layers, config.hidden_size) == (2, 16)
    assert (config.num_attention_heads, config.intermediate_size) == (4, 32)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.25, 0.25)
    assert (config.vocab_size, config.type_vocab_size) == (len(VOCABULARY), 2)
    assert (config.max_position_embeddings, config.pad_token_id) == (30, 0)
    assert (config.hidden_act, config.layer_norm_eps) == ("relu", 1e-7)
    assert config.id2label == dict(enumerate(LABELS))
    assert config.label2id == {label: number for number, label in enumerate(LABELS)}
    assert config.problem_type == "single_label_classification"


def test_the_papers_student_has_its_published_size() -> None:
    """14,350,874 parameters with two labels: 4 layers, 312 wide, 1,200 neurons, 30,522 pieces."""
    from transformers import BertConfig, BertForSequenceClassification

    with torch.device("meta"):
        large = BertForSequenceClassification(BertConfig(num_labels=2))
        model = BertForSequenceClassification(student_config(large, StudentSettings()))
    assert sum(parameter.numel() for parameter in model.parameters()) == 14_350_874


@pytest.mark.parametrize("kind", ["random", "teacher"])
def test_the_start_is_a_function_of_the_seed(
    teacher: TorchClassifier, dataset: Dataset, kind: str
) -> None:
    first = start(teacher, dataset, start=kind)
    torch.rand(3)  # other randomness does not enter
    second = start(teacher, dataset, start=kind)
    assert equal(first.model, second.model)
    assert equal(first.projections, second.projections)
    other = start(teacher, dataset, start=kind, seed=2)
    # a derived start draws nothing
    assert equal(first.model, other.model) == (kind == "teacher")


def test_the_derived_start_looks_at_the_first_rows_only(
    teacher: TorchClassifier, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(teacher, dataset)
    monkeypatch.setattr(student_module, "CALIBRATION_TOKENS", int(rows.lengths[:40].sum()))
    settings = StudentSettings(**SHAPE, start="teacher")
    first_40 = EncodedRows(rows.input_ids[:40], rows.token_type_ids[:40], rows.pad_id)
    first_39 = EncodedRows(rows.input_ids[:39], rows.token_type_ids[:39], rows.pad_id)
    all_rows, enough, fewer = (
        start_student(settings, None, teacher, (2, 3), given, 1).model
        for given in (rows, first_40, first_39)
    )
    assert equal(all_rows, enough)
    assert not equal(all_rows, fewer)


def test_a_checkpoint_of_the_right_shape_is_taken(
    teacher: TorchClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    checkpoint = tiny_bert(("yes", "no"), seed=5, **FIELDS)  # other labels: its head is left
    folder = save_tiny(checkpoint, tmp_path)
    model = start(teacher, dataset, folder, start=str(folder), dropout=0.25).model
    assert equal(model.bert, checkpoint.bert)
    assert model.classifier.out_features == 3
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.hidden_dropout_prob == 0.25


def test_a_checkpoint_of_another_shape_is_refused(
    teacher: TorchClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    fields = {
        "num_hidden_layers": 3,
        "hidden_size": 20,
        "num_attention_heads": 5,
        "intermediate_size": 30,
        "vocab_size": 50,
        "max_position_embeddings": 16,
        "type_vocab_size": 1,
    }
    tiny_bert(**fields).save_pretrained(tmp_path)
    with pytest.raises(RecipeError) as caught:
        start(teacher, dataset, tmp_path, start=str(tmp_path))
    needed = (2, 16, 4, 32, len(VOCABULARY), 32, 2)
    assert list(caught.value.problems) == [
        f"{name} is {found} in {tmp_path}, the student needs {wanted}"
        for (name, found), wanted in zip(fields.items(), needed, strict=True)
    ]


def test_a_checkpoint_that_is_no_bert_is_refused(
    teacher: TorchClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    """Its shape fits, its weights have other names: loading it would leave random ones."""
    config = ElectraConfig(
        vocab_size=len(VOCABULARY),
        embedding_size=16,
        num_attention_heads=4,
        max_position_embeddings=32,
        **FIELDS,
    )
    ElectraForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=r"model_type is electra .* the student needs bert"):
        start(teacher, dataset, tmp_path, start=str(tmp_path))


@pytest.mark.parametrize("broken", ["no weights", "no folder"])
def test_a_checkpoint_that_cannot_be_loaded_is_a_recipe_error(
    teacher: TorchClassifier, dataset: Dataset, tmp_path: Path, broken: str
) -> None:
    folder = save_tiny(tiny_bert(seed=5, **FIELDS), tmp_path / "general_4l")
    if broken == "no weights":
        (folder / "model.safetensors").unlink()
    else:
        folder = tmp_path / "elsewhere"
    with pytest.raises(RecipeError, match=r"general_4l|elsewhere"):
        start(teacher, dataset, folder, start=str(folder))


def test_a_checkpoint_from_before_model_type_was_written_is_taken(
    teacher: TorchClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    folder = save_tiny(tiny_bert(seed=5, **FIELDS), tmp_path / "general_4l")
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"]
    (folder / "config.json").write_text(json.dumps(config))
    student = start(teacher, dataset, folder, start=str(folder))
    expected = tiny_bert(seed=5, **FIELDS).bert.embeddings.word_embeddings.weight
    assert torch.equal(student.model.bert.embeddings.word_embeddings.weight, expected)
