"""The table of forms: what each file holds, and how near it is to fp32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from forms_of_student import TRAIN, StudentForms
from helpers.tiny_models import open_tiny, save_tiny, tiny_bert, tiny_split

from factory.export.forms import (
    FORMS,
    FormName,
    FormSource,
    auto_forms,
    calibration_rows,
    write_forms,
)
from factory.export.onnx import export_onnx
from factory.export.parity import open_session, session_logits
from factory.models.encoding import encode_inputs


def test_every_name_has_a_row() -> None:
    assert tuple(FORMS) == get_args(FormName)
    assert all(form.name == name and form.neighbour_independent for name, form in FORMS.items())
    labels = [form.label for form in FORMS.values()]
    assert len(set(labels)) == len(labels)


def test_auto_suits_the_hardware() -> None:
    cpu = ("fp32", "int8-static", "int8-rows", "int8-embeddings")
    assert auto_forms("avx2") == auto_forms("arm64") == auto_forms("web") == cpu
    assert auto_forms("cuda") == ("fp32", "fp32-fused", "fp16")


def test_every_form_is_a_file_near_fp32(forms: StudentForms) -> None:
    student = forms.source.student
    rows = encode_inputs(student.tokenizer, tiny_split("dev", 30, seed=9).inputs(), 24)
    logits = {
        name: session_logits(open_session(forms.file(name), threads=1), rows) for name in FORMS
    }
    expected = student.logits(tiny_split("dev", 30, seed=9).inputs())
    np.testing.assert_allclose(logits.pop("fp32"), expected, atol=1e-4)
    for name, found in logits.items():
        error = np.abs(found - expected).mean() / expected.std()
        assert 0 < error < (0.5 if name == "int4" else 0.05), name


def test_what_is_quantized(forms: StudentForms) -> None:
    assert {name: facts.get("products") for name, facts in forms.facts.items()} == {
        "fp32": None,
        "fp32-fused": None,
        "fp16": None,
        "int8-static": 13,
        "int8-rows": 13,
        "int8-embeddings": 0,
        "int4": 13,
    }
    sizes = {name: forms.file(name).stat().st_size for name in FORMS}
    assert sizes["int4"] < sizes["int8-static"] < sizes["int8-embeddings"] < sizes["fp32"]


def test_the_shipped_shape_fits_in_15_megabytes(tmp_path: Path) -> None:
    """4 layers, 312 wide, 12 heads, vocabulary 30,522: the size that the documentation names."""
    shape = {"hidden_size": 312, "intermediate_size": 1200, "num_hidden_layers": 4}
    shape |= {"num_attention_heads": 12, "max_position_embeddings": 512}
    model = tiny_bert(vocab_size=30522, **shape)
    folder = save_tiny(model, tmp_path / "model")
    export_onnx(folder, tmp_path / "plain.onnx", opset=17)
    source = FormSource(tmp_path / "plain.onnx", open_tiny(folder), TRAIN, 2, 0.8, False)
    facts = write_forms(tmp_path, ["int8-static"], source)["int8-static"]
    assert (tmp_path / "plain.onnx").stat().st_size > 57e6
    assert 14e6 < (tmp_path / "int8-static.onnx").stat().st_size < 15.5e6
    assert facts["products"] == 4 * 6 + 1  # the pooler; the classifier stays in float
    tables = [
        tensor.data_type
        for tensor in onnx.load(tmp_path / "int8-static.onnx").graph.initializer
        if list(tensor.dims) == [30522, 312]
    ]
    assert tables in ([onnx.TensorProto.INT8], [onnx.TensorProto.UINT8])


def test_calibration_rows_are_spread_over_train(forms: StudentForms) -> None:
    student = forms.source.student
    found = calibration_rows(student, TRAIN, 3)
    texts = [TRAIN.texts[n] for n in (0, 19, 39)]
    expected = [student.tokenizer(text)["input_ids"] for text in texts]
    assert [row.tolist() for row in found.input_ids] == expected
    assert len(calibration_rows(student, TRAIN, 1000)) == 40


def largest_weight(file: Path) -> int:
    """Of the 8-bit matrices that products read, as stored."""
    graph = onnx.load(file).graph
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    read = {name for node in products for name in node.input}
    weights = [onnx.numpy_helper.to_array(t) for t in graph.initializer if t.name in read]
    return max(int(np.abs(w.astype(int)).max()) for w in weights if w.dtype == np.int8)


@pytest.mark.parametrize("name", ["int8-static", "int8-rows"])
def test_weights_have_seven_bits_where_eight_overflow(
    forms: StudentForms, tmp_path: Path, name: Any
) -> None:
    """Two products of 8 bits overflow 16; 255 * 63 * 2 does not."""
    assert largest_weight(forms.file(name)) == 127
    write_forms(tmp_path, [name], replace(forms.source, seven_bits=True, calibration_rows=4))
    assert largest_weight(tmp_path / f"{name}.onnx") == 63


def test_smoothing_is_a_setting(forms: StudentForms, tmp_path: Path) -> None:
    write_forms(tmp_path, ["int8-static"], replace(forms.source, smoothing=0.0))
    names = [
        {tensor.name for tensor in onnx.load(file).graph.initializer}
        for file in (tmp_path / "int8-static.onnx", forms.file("int8-static"))
    ]
    assert [any(name.endswith("/smoothing") for name in found) for found in names] == [False, True]
