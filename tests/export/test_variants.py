"""The variants by name: what each file holds, how near it is, what it promises of neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tiny_models import open_tiny, save_tiny, tiny_bert, tiny_split

from factory.errors import ParityError
from factory.export.onnx import export_onnx
from factory.export.session import open_session, session_logits
from factory.export.variants import PRODUCTS_KEPT, calibration_rows, integer_form, write_variants
from factory.models.classifier import TorchClassifier
from factory.models.encoding import encode_inputs
from factory.recipe.export import NEIGHBOUR_INDEPENDENT, Hardware, QuantizeSettings, VariantName

NAMES: tuple[VariantName, ...] = (
    "fp32-fused", "fp16", "int8", "int8-static", "int8-mixed", "int8-rows", "int8-careful",
    "int8-embeddings", "int4",
)  # fmt: skip
INTEGER_NAMES = NAMES[3:]  # by write_integer, which tells what it did
TRAIN = tiny_split("train", 40, seed=3)


@dataclass(frozen=True, slots=True)
class Made:
    """Every variant of one student wide enough to be quantized."""

    folder: Path
    source: Path
    student: TorchClassifier
    facts: dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two layers, 112 wide, with the tiny vocabulary."""
    folder = tmp_path_factory.mktemp("variants")
    shape = {"hidden_size": 112, "intermediate_size": 160, "num_hidden_layers": 2}
    save_tiny(tiny_bert(seed=4, **shape), folder / "model")
    source = folder / "model.onnx"
    export_onnx(folder / "model", source, opset=17)
    student = open_tiny(folder / "model")
    settings = QuantizeSettings(calibration_rows=12)
    return Made(
        folder,
        source,
        student,
        write_variants(folder, source, NAMES, settings, "avx512-vnni", student, TRAIN),
    )


def test_every_variant_is_a_file_near_fp32(made: Made) -> None:
    rows = encode_inputs(made.student.tokenizer, tiny_split("dev", 30, seed=9).inputs(), 24)
    expected = session_logits(open_session(made.source), rows)
    spread = expected.std()
    for name in NAMES:
        found = session_logits(open_session(made.folder / f"{name}.onnx"), rows)
        error = np.abs(found - expected).mean()
        assert 0 < error < (0.5 if name == "int4" else 0.05) * spread, name


def test_what_a_variant_promises_of_neighbours_is_what_its_form_does(made: Made) -> None:
    told = {name: facts.get("neighbour_independent") for name, facts in made.facts.items()}
    for name in INTEGER_NAMES:
        assert told[name] is (name in NEIGHBOUR_INDEPENDENT), name
    assert "int8" not in NEIGHBOUR_INDEPENDENT


def test_activations_and_products_left_in_float(made: Made) -> None:
    products = {name: made.facts[name]["products"] for name in INTEGER_NAMES}
    assert products["int8-static"] == products["int4"] == {"static": 13}
    assert products["int8-mixed"] == {"static": 11, "rows": 2}
    assert products["int8-rows"] == {"rows": 13}
    assert products["int8-embeddings"] == {}
    assert products["int8-careful"] == {"rows": 13 - PRODUCTS_KEPT}
    sizes = {name: (made.folder / f"{name}.onnx").stat().st_size for name in NAMES}
    assert sizes["int4"] < sizes["int8-rows"] < sizes["int8-careful"] < sizes["int8-embeddings"]
    assert sizes["int8-embeddings"] < made.source.stat().st_size


def test_the_careful_form_is_nearer_than_the_one_it_comes_from(made: Made) -> None:
    rows = calibration_rows(made.student, TRAIN, 40)
    expected = session_logits(open_session(made.source), rows)
    errors = {
        name: np.abs(session_logits(open_session(made.folder / f"{name}.onnx"), rows) - expected)
        for name in ("int8-rows", "int8-careful")
    }
    assert errors["int8-careful"].mean() < errors["int8-rows"].mean()


def test_calibration_rows_are_spread_over_train(made: Made) -> None:
    found = calibration_rows(made.student, TRAIN, 3)
    texts = [TRAIN.texts[n] for n in (0, 19, 39)]
    expected = [made.student.tokenizer(text)["input_ids"] for text in texts]
    assert [row.tolist() for row in found.input_ids] == expected
    assert len(calibration_rows(made.student, TRAIN, 1000)) == 40


def test_a_student_too_small_to_be_quantized_is_told(made: Made, tmp_path: Path) -> None:
    model = tiny_bert()
    source = tmp_path / "model.onnx"
    export_onnx(save_tiny(model, tmp_path / "model"), source, opset=17)
    student = open_tiny(tmp_path / "model")
    with pytest.raises(ParityError, match="nothing is quantized"):
        write_variants(tmp_path, source, ["int8-rows"], QuantizeSettings(), "avx2", student, TRAIN)


def test_the_mixed_form_scales_what_comes_out_of_gelu_per_token() -> None:
    form = integer_form("int8-mixed", 2, False, 0.8)
    assert form.rows == tuple(f"/bert/encoder/layer.{n}/output/dense/MatMul" for n in (0, 1))


def largest_weight(file: Path) -> int:
    """Of the 8-bit matrices that products read, as stored."""
    graph = onnx.load(file).graph
    products = [node for node in graph.node if node.op_type.startswith("MatMulInteger")]
    read = {name for node in products for name in node.input}
    weights = [onnx.numpy_helper.to_array(t) for t in graph.initializer if t.name in read]
    return max(
        int(np.abs(weight.astype(int)).max()) for weight in weights if weight.dtype == np.int8
    )


@pytest.mark.parametrize(
    ("hardware", "largest"), [("avx2", 63), ("web", 63), ("avx512-vnni", 127), ("arm64", 127)]
)
def test_weights_have_as_many_bits_as_the_hardware_can_add(
    made: Made, tmp_path: Path, hardware: Hardware, largest: int
) -> None:
    """Two products of 8 bits overflow 16; 255 * 63 * 2 does not."""
    settings = QuantizeSettings(calibration_rows=4)
    names: tuple[VariantName, ...] = ("int8", "int8-static", "int8-mixed", "int8-rows")
    write_variants(tmp_path, made.source, names, settings, hardware, made.student, TRAIN)
    found = {name: largest_weight(tmp_path / f"{name}.onnx") for name in names}
    assert {largest - 1, largest, largest + 1} >= set(found.values())


def static_scales(made: Made, folder: Path, settings: QuantizeSettings) -> dict[str, float]:
    """Of the activations of "int8-static", by name."""
    folder.mkdir()
    names: tuple[VariantName, ...] = ("int8-static",)
    write_variants(folder, made.source, names, settings, "avx2", made.student, TRAIN)
    tensors = onnx.load(folder / "int8-static.onnx").graph.initializer
    return {
        tensor.name: float(onnx.numpy_helper.to_array(tensor))
        for tensor in tensors
        if tensor.name.endswith("static_scale")
    }


def test_the_recipe_says_how_activations_are_scaled(made: Made, tmp_path: Path) -> None:
    plain = QuantizeSettings(calibration_rows=12, smoothing=0.0)
    whole = static_scales(made, tmp_path / "whole", plain)
    cut = static_scales(
        made, tmp_path / "cut", plain.model_copy(update={"calibration": "percentile"})
    )
    smooth = static_scales(made, tmp_path / "smooth", QuantizeSettings(calibration_rows=12))
    assert whole.keys() == cut.keys() == smooth.keys()
    assert all(cut[name] <= whole[name] for name in whole)
    assert sum(cut.values()) < sum(whole.values())
    assert all(smooth[name] != whole[name] for name in whole)
