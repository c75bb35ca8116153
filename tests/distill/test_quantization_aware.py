"""Training with rounded numbers: what it computes is what the integer file computes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_models import (
    MAX_LENGTH,
    open_tiny,
    save_tiny,
    tiny_bert,
    tiny_split,
    tiny_tokenizer,
)
from tiny_runs import QUICK, hooks_of, losses_of
from torch.nn.utils import parametrize
from transformers import BertForSequenceClassification

from factory.distill.lesson import Lesson, learn_logits, make_lesson
from factory.distill.phases import prediction_phase
from factory.distill.quantization_aware import (
    _as_exported,
    rounded,
    roundings_of,
    train_rounded,
)
from factory.errors import ParityError
from factory.export.onnx import export_onnx
from factory.export.quantize.calibration import (
    ActivationRanges,
    activation_ranges,
    measure_activations,
)
from factory.export.quantize.form import IntegerForm
from factory.export.quantize.write import write_integer
from factory.export.session import open_session, session_logits
from factory.models.classifier import TorchClassifier
from factory.models.encoding import EncodedRows, encode_inputs

TRAIN = tiny_split("train", 60, seed=3)
DEV = tiny_split("dev", 30, seed=4)
# 7 bits, so that no processor overflows
STATIC = IntegerForm("static", "float", smoothing=0.5, reduced_range=True)
FORMS = {
    "static": replace(STATIC, smoothing=None),
    "smoothed": STATIC,
    "rows": IntegerForm("rows", "float", reduced_range=True),
    "mixed": replace(STATIC, rows=("/bert/encoder/layer.0/output/dense/MatMul",)),
    "kept": replace(STATIC, keep_float=("/bert/pooler/dense/Gemm", "*/query/MatMul")),
}


@dataclass(frozen=True, slots=True)
class Wide:
    """A student wide enough for its products to be quantized, as folder and as files."""

    folder: Path
    files: dict[bool, Path]
    rows: EncodedRows

    def ranges(self, first_token: bool) -> ActivationRanges:
        return activation_ranges(measure_activations(self.files[first_token], self.rows))

    def open(self) -> Any:
        return BertForSequenceClassification.from_pretrained(
            self.folder, attn_implementation="eager"
        )


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory, trained_folder: Path) -> Lesson:
    teacher = open_tiny(trained_folder)
    directory = tmp_path_factory.mktemp("lesson")
    return make_lesson(directory, teacher, teacher.tokenizer, TRAIN, QUICK, None, None)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, lesson: Lesson) -> Wide:
    folder = tmp_path_factory.mktemp("wide")
    shape = {"hidden_size": 112, "intermediate_size": 128, "num_hidden_layers": 2}
    model = tiny_bert(seed=3, hidden_dropout_prob=0.1, **shape)
    phase = replace(prediction_phase(QUICK), epochs=12.0, learning_rate=1e-3)
    rows = lesson.transfer.rows
    learn_logits(phase, model, lesson, rows, 1.0, folder / "taught.checkpoint")
    save_tiny(model, folder)
    files = {}
    for first_token in (True, False):
        files[first_token] = folder / f"{first_token}.onnx"
        export_onnx(folder, files[first_token], 17, first_token)
    return Wide(folder, files, encode_inputs(tiny_tokenizer(), TRAIN.texts, MAX_LENGTH))


def file_logits(file: Path) -> np.ndarray:
    rows = encode_inputs(tiny_tokenizer(), DEV.texts, MAX_LENGTH)
    return session_logits(open_session(file, threads=1), rows, batch_size=1)


@pytest.mark.parametrize("first_token", [True, False])
@pytest.mark.parametrize("name", FORMS)
def test_the_rounded_student_computes_what_the_integer_file_does(
    wide: Wide, tmp_path: Path, name: str, first_token: bool
) -> None:
    form, ranges, source = FORMS[name], wide.ranges(first_token), wide.files[first_token]
    facts = write_integer(source, tmp_path / "form.onnx", form, ranges)
    expected = file_logits(tmp_path / "form.onnx")
    student = wide.open()
    roundings = roundings_of(source, form, ranges)
    assert len(roundings) == sum(facts["products"].values())
    with _as_exported(student, first_token), rounded(student, roundings):
        found = TorchClassifier(student, tiny_tokenizer(), MAX_LENGTH).logits(DEV.texts)
    # sums in another order: a number between two levels falls to either side now and then
    difference = np.abs(found - expected)
    assert np.median(difference) < 1e-5
    assert difference.mean() < 0.1 * np.abs(file_logits(source) - expected).mean()


def test_everything_is_as_before_once_it_is_over(wide: Wide) -> None:
    student, before = wide.open(), wide.open().state_dict()
    layer = student.bert.encoder.layer[-1]
    roundings = roundings_of(wide.files[True], STATIC, wide.ranges(True))
    with pytest.raises(KeyError), _as_exported(student, True), rounded(student, roundings):
        raise KeyError
    assert student.bert.encoder.layer[-1] is layer
    after = student.state_dict()
    assert after.keys() == before.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-6, atol=1e-7, msg=name)
    assert not any(parametrize.is_parametrized(module) for module in student.modules())
    assert not hooks_of(student)
    assert not [hook for module in student.modules() for hook in module._forward_pre_hooks.values()]


def test_training_brings_the_integer_form_nearer_and_leaves_a_plain_student(
    wide: Wide, lesson: Lesson, tmp_path: Path
) -> None:
    form, source = STATIC, wide.files[True]
    coarse = {  # so coarse that there is something to win
        name: replace(rounding, largest=3)
        for name, rounding in roundings_of(source, form, wide.ranges(True)).items()
    }
    phase = replace(prediction_phase(QUICK), epochs=8.0, learning_rate=1e-3)
    (tmp_path / "one").mkdir()
    facts = train_rounded(tmp_path / "one", wide.folder, coarse, lesson, phase, 1.0)
    assert facts["steps"] == 32
    # the same training with nothing rounded
    (tmp_path / "float").mkdir()
    train_rounded(tmp_path / "float", wide.folder, {}, lesson, phase, 1.0)

    wanted = lesson.teacher.logits(DEV.texts)

    def error(folder: Path) -> float:
        student = BertForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
        with _as_exported(student, True), rounded(student, coarse):
            found = TorchClassifier(student, tiny_tokenizer(), MAX_LENGTH).logits(DEV.texts)
        difference = torch.from_numpy(found).softmax(1) - torch.from_numpy(wanted).softmax(1)
        return float(difference.square().mean())

    trained = tmp_path / "one" / "model"
    assert error(trained) < 0.6 * error(wide.folder)
    assert error(trained) < 0.8 * error(tmp_path / "float" / "model")
    before, after = (load_file(path / "model.safetensors") for path in (wide.folder, trained))
    assert before.keys() == after.keys()
    key = "bert.encoder.layer.1.attention.self.key.weight"  # trained in its exported form
    assert not np.allclose(before[key], after[key], atol=1e-5)
    assert losses_of(tmp_path / "one")["prediction.total"]
    export_onnx(trained, tmp_path / "trained.onnx", 17)
    found, torch_logits = (
        file_logits(tmp_path / "trained.onnx"),
        open_tiny(trained).logits(DEV.texts),
    )
    np.testing.assert_allclose(found, torch_logits, atol=1e-4)


@pytest.mark.parametrize(
    "form",
    [IntegerForm("dynamic"), IntegerForm("blocks"), IntegerForm("rows", weight_bits=4)],
    ids=["dynamic", "blocks", "4 bits"],
)
def test_forms_it_does_not_know(wide: Wide, form: IntegerForm) -> None:
    with pytest.raises(ParityError, match="knows 8-bit weights"):
        roundings_of(wide.files[True], form, wide.ranges(True))


def test_static_forms_need_ranges(wide: Wide) -> None:
    with pytest.raises(ParityError, match="calibrate"):
        roundings_of(wide.files[True], STATIC, None)
