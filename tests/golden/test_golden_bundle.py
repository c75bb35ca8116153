"""The content of a bundle that is a pure function of one teacher's weights, by golden values.

The teacher's weights are a formula, it is adopted as it is, and both phases of the distillation
have no epochs: what ships is the start that is derived from the teacher. `golden_bundle.json` holds
what a bundle held when the file was written; after a change that is meant to change it:

    python tests/golden/test_golden_bundle.py --write
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_inputs import (
    LABELS,
    MAX_LENGTH,
    factory,
    onnx_logits,
    save_teacher,
    student_folder,
    texts,
    torch_logits,
    write_tsv,
)

GOLDEN = Path(__file__).with_name("golden_bundle.json")
RECIPE = f"""
name = "golden"

[data]
train = "train.tsv"
dev = "dev.tsv"
max_length = {MAX_LENGTH}

[teacher]
model = "teacher"
fine_tune = false

[student]
layers = 2
hidden = 104
heads = 4
intermediate = 120

[distill.intermediate]
epochs = 0.0

[distill.prediction]
epochs = 0.0

[quantize]
forms = ["int8-static"]

[gate]
min_retention = 0.1
max_quantization_drop = 0.1
"""
MODELS = {"fp32": "onnx/model.onnx", "int8-static": "onnx/model_quantized.onnx"}
# Factors of a singular value decomposition have no sign of their own, so numbers are probed as
# absolute values; between machines they differ by what float32 rounds, and a bit more.
WEIGHT_RTOL = 1e-3
FP32_ATOL = 1e-3
# An 8-bit level more or less, where a float32 rounds to the other side; 0.03 was seen.
INT8_ATOL = 0.06


@dataclass(frozen=True, slots=True)
class Built:
    """A finished run of the recipe."""

    store: Path
    bundle: Path


def build(directory: Path) -> Built:
    """Write teacher, data and recipe, and run them; the labels are the teacher's own answers."""
    save_teacher(directory / "teacher")
    for split, count in (("train", 240), ("dev", 90)):
        rows = [text for text, _ in texts(split, count)]
        if split == "dev":
            seen = {text for text, _ in texts("train", 240)}
            rows = [text for text in rows if text not in seen]
        answers = torch_logits(directory / "teacher", rows).argmax(axis=1)
        write_tsv(
            directory / f"{split}.tsv",
            [(text, LABELS[answer]) for text, answer in zip(rows, answers, strict=True)],
        )
    (directory / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    store = directory / "runs"
    result = factory("run", directory / "recipe.toml", "--store", store)
    assert result.returncode == 0, result.stderr
    return Built(store, Path(result.stdout.strip()))


def observe(built: Built) -> dict[str, Any]:
    """Everything that is compared with the golden values, as JSON data."""
    probes = [text for text, _ in texts("probe", 8)]
    return {
        "files": sorted(
            file.relative_to(built.bundle).as_posix()
            for file in built.bundle.rglob("*")
            if file.is_file()
        ),
        "settings": {
            name: _settings(built.bundle / name)
            for name in (
                "config.json",
                "tokenizer_config.json",
                "special_tokens_map.json",
                "sentence_bert_config.json",
            )
            if (built.bundle / name).is_file()
        },
        "sha256": {
            name: hashlib.sha256((built.bundle / name).read_bytes()).hexdigest()
            for name in ("tokenizer.json", "vocab.txt")
        },
        "manifest": _manifest(built.bundle),
        "weights": _weights(student_folder(built.store, built.bundle)),
        "graphs": {form: _graph(built.bundle / file) for form, file in MODELS.items()},
        "logits": {
            form: onnx_logits(built.bundle, file, probes).astype(float).round(5).tolist()
            for form, file in MODELS.items()
        },
    }


def _settings(file: Path) -> Any:
    content = json.loads(file.read_text(encoding="utf-8"))
    content.pop("transformers_version", None)
    return content


def _manifest(bundle: Path) -> dict[str, Any]:
    """What the manifest says that no machine decides."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    kept = ("format", "format_version", "name", "task", "labels", "text_pair", "max_length")
    return {
        "keys": sorted(manifest),
        **{key: manifest[key] for key in (*kept, "model", "data")},
        "files": sorted(manifest["files"]),
        "gate": [rule["rule"] for rule in manifest["gate"]],
        "scores": {model: sorted(splits) for model, splits in manifest["scores"].items()},
    }


def _weights(folder: Path) -> dict[str, Any]:
    """Type, shape, sum of absolute values, norm and five absolute values of every tensor."""
    from safetensors.numpy import load_file

    found: dict[str, Any] = {}
    for name, tensor in sorted(load_file(folder / "model.safetensors").items()):
        flat = np.abs(tensor.astype(np.float64).ravel())
        places = np.linspace(0, len(flat) - 1, 5).astype(int)
        found[name] = {
            "dtype": str(tensor.dtype),
            "shape": list(tensor.shape),
            "sum": _rounded(flat.sum()),
            "norm": _rounded(np.linalg.norm(flat)),
            "probes": [_rounded(value) for value in flat[places]],
        }
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _graph(file: Path) -> dict[str, Any]:
    """Interface, opsets and how often each operator occurs."""
    import onnx

    model = onnx.load(file)
    return {
        "inputs": [_described(value) for value in model.graph.input],
        "outputs": [_described(value) for value in model.graph.output],
        "opsets": {entry.domain: entry.version for entry in model.opset_import},
        "operators": dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
    }


def _described(value: Any) -> list[Any]:
    from onnx import TensorProto

    tensor = value.type.tensor_type
    sizes = [size.dim_param or size.dim_value for size in tensor.shape.dim]
    return [value.name, TensorProto.DataType.Name(tensor.elem_type), sizes]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The bundle; no test may change it."""
    return build(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def found(built: Built) -> dict[str, Any]:
    """What the bundle holds."""
    return observe(built)


@pytest.fixture(scope="module")
def golden() -> Mapping[str, Any]:
    """What it held when the golden values were written."""
    content: Mapping[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("part", ["files", "settings", "sha256", "manifest"])
def test_what_no_arithmetic_decides(
    found: Mapping[str, Any], golden: Mapping[str, Any], part: str
) -> None:
    assert found[part] == golden[part]


@pytest.mark.parametrize("form", MODELS)
def test_the_graph(found: Mapping[str, Any], golden: Mapping[str, Any], form: str) -> None:
    assert found["graphs"][form] == golden["graphs"][form]


def test_the_weights_derived_from_the_teacher(
    found: Mapping[str, Any], golden: Mapping[str, Any]
) -> None:
    assert list(found["weights"]) == list(golden["weights"])
    for name, expected in golden["weights"].items():
        tensor = found["weights"][name]
        assert (tensor["dtype"], tensor["shape"]) == (expected["dtype"], expected["shape"]), name
        typical = expected["norm"] / np.prod(expected["shape"]) ** 0.5
        for key in ("sum", "norm", "probes"):
            np.testing.assert_allclose(
                tensor[key],
                expected[key],
                rtol=WEIGHT_RTOL,
                atol=WEIGHT_RTOL * typical,
                err_msg=f"{name}: {key}",
            )


@pytest.mark.parametrize(("form", "atol"), [("fp32", FP32_ATOL), ("int8-static", INT8_ATOL)])
def test_the_logits(
    found: Mapping[str, Any], golden: Mapping[str, Any], form: str, atol: float
) -> None:
    np.testing.assert_allclose(found["logits"][form], golden["logits"][form], rtol=0, atol=atol)


def test_the_torch_student_and_the_server_answer_alike(
    built: Built, found: Mapping[str, Any]
) -> None:
    from serving import Predictor

    probes = [text for text, _ in texts("probe", 8)]
    plain = torch_logits(student_folder(built.store, built.bundle), probes)
    np.testing.assert_allclose(found["logits"]["fp32"], plain, rtol=0, atol=1e-4)
    served = Predictor.open(built.bundle)
    assert served.labels == LABELS
    answers = served.logits(probes)
    np.testing.assert_allclose(found["logits"]["int8-static"], answers, rtol=0, atol=1e-4)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/golden/test_golden_bundle.py --write")
    with tempfile.TemporaryDirectory() as made:
        content = json.dumps(observe(build(Path(made))), indent=1, ensure_ascii=False)
    GOLDEN.write_text(content + "\n", encoding="utf-8")
