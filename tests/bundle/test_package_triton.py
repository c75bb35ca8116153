"""A Triton model repository: its configuration read by Triton's own definition, then run."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from helpers.edge_bundles import Edge
from helpers.pipeline_run import factory_here
from test_package import quick_check  # noqa: F401
from tokenizers import Tokenizer

from factory.bundle.package import TritonMachine, triton_name, write_model_configuration
from factory.errors import PackageError, TextModelError
from factory.export.parity import open_session
from factory.export.text import write as text_input
from serving.predictor import Predictor

TYPES = {"TYPE_INT64": np.int64, "TYPE_FP32": np.float32, "TYPE_BOOL": np.bool_}


@pytest.fixture(scope="session")
def definition() -> Any:
    """Triton's own inference.ModelConfig, from its client but without the grpc it also brings."""
    path = distribution("tritonclient").locate_file("tritonclient/grpc/model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelConfig


def read(definition: Any, directory: Path) -> Any:
    return text_format.Parse((directory / "config.pbtxt").read_text("utf-8"), definition())


def type_name(tensor: Any) -> str:
    kind = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type
    return str(kind.values_by_number[tensor.data_type].name)


def run(configuration: Any, directory: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Do with a request what Triton does: check it, reshape inputs, run, reshape outputs."""
    feed = {}
    for tensor in configuration.input:
        array = np.asarray(given.pop(tensor.name))
        assert len(array) <= configuration.max_batch_size
        dims = list(tensor.dims)
        assert all(
            size in (wanted, -1) or wanted == -1
            for size, wanted in zip(array.shape[1:], dims, strict=True)
        )
        if type_name(tensor) != "TYPE_STRING":
            assert array.dtype == TYPES[type_name(tensor)]
        if tensor.HasField("reshape"):
            array = array.reshape(len(array), *tensor.reshape.shape)
        feed[tensor.name] = array
        rows = len(array)
    assert not given
    session = open_session(directory / "1" / "model.onnx", threads=1)
    names = [tensor.name for tensor in configuration.output]
    answers = dict(zip(names, session.run(names, feed), strict=True))
    for tensor in configuration.output:
        array = answers[tensor.name]
        if type_name(tensor) != "TYPE_STRING":
            assert array.dtype == TYPES[type_name(tensor)]
        if tensor.HasField("reshape"):
            assert array.shape == (rows, *tensor.reshape.shape)
            array = array.reshape(rows, *tensor.dims)
        assert array.shape == (rows, *tensor.dims)
        answers[tensor.name] = array
    return answers


@pytest.mark.usefixtures("quick_check")
@pytest.mark.parametrize("kind", ["pair", "multilabel", "regression"])
def test_both_models_give_the_answers_of_the_bundle(
    edge: Callable[[str], Edge], tmp_path: Path, definition: Any, kind: str
) -> None:
    given, output = edge(kind), tmp_path / "models"
    result = factory_here("package", given.bundle, "--format", "triton", "--output", output)
    assert (result.exit_code, result.stdout) == (0, f"{output}\n"), result.stderr
    name = f"edge-{kind}"
    assert sorted(
        str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()
    ) == [
        f"{name}/1/model.onnx",
        f"{name}/config.pbtxt",
        f"{name}/labels.txt",
        f"{name}_text/1/model.onnx",
        f"{name}_text/config.pbtxt",
        "labels.json",
        "tokenizer.json",
    ]
    usage = json.loads((output / "labels.json").read_text("utf-8"))
    of_strings = usage["models"][f"{name}_text"]
    assert of_strings["inputs"] == ["text", "text_pair"][: 1 + usage["text_pair"]]
    assert of_strings["outputs"] == (["scores"] if kind == "regression" else ["label", "scores"])
    predictor = Predictor.open(given.bundle)
    tokens = read(definition, output / name)
    strings = read(definition, output / f"{name}_text")
    assert (tokens.name, strings.name) == (name, f"{name}_text") == tuple(usage["models"])
    assert (tokens.max_batch_size, tokens.HasField("dynamic_batching")) == (32, True)
    kinds = tokens.instance_group[0].DESCRIPTOR.enum_values_by_name
    assert [(group.count, group.kind) for group in tokens.instance_group] == [
        (1, kinds["KIND_CPU"].number)
    ]
    assert tokens.backend == strings.backend == "onnxruntime"
    assert (output / name / "labels.txt").read_text("utf-8").split() == list(predictor.labels)
    tokenizer = Tokenizer.from_file(str(output / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(usage["max_length"])
    for item in given.inputs[:6]:
        (expected,) = predictor.predict([item])
        encoded = tokenizer.encode(*([item] if isinstance(item, str) else item))
        rows = {
            "input_ids": [encoded.ids],
            "attention_mask": [encoded.attention_mask],
            "token_type_ids": [encoded.type_ids],
        }
        answer = run(tokens, output / name, {key: np.array(row) for key, row in rows.items()})
        np.testing.assert_allclose(answer["logits"][0], expected.logits, atol=1e-4)
        texts = [item] if isinstance(item, str) else item
        request = dict(zip(of_strings["inputs"], texts, strict=True))
        answer = run(
            strings,
            output / f"{name}_text",
            {key: np.array([[text]], dtype=object) for key, text in request.items()},
        )
        np.testing.assert_allclose(answer["scores"][0], expected.scores, atol=1e-5)
        assert answer["token_count"].tolist() == [[expected.tokens]]


@pytest.mark.usefixtures("quick_check")
def test_batching_and_machines(
    edge: Callable[[str], Edge], tmp_path: Path, definition: Any
) -> None:
    arguments = ["--format", "triton", "--triton-device", "gpu", "--triton-instances", 3]
    factory_here("package", edge("single").bundle, *arguments, "--output", tmp_path / "two")
    tokens = read(definition, tmp_path / "two" / "edge-single")
    strings = read(definition, tmp_path / "two" / "edge-single_text")
    assert tokens.HasField("dynamic_batching")
    assert tokens.max_batch_size == strings.max_batch_size == 32
    kinds = tokens.instance_group[0].DESCRIPTOR.enum_values_by_name
    assert [(group.count, group.kind) for group in tokens.instance_group] == [
        (3, kinds["KIND_GPU"].number)
    ]
    assert strings.instance_group[0].kind == kinds["KIND_CPU"].number
    assert tokens.version_policy.latest.num_versions == 1
    assert {key: value.string_value for key, value in tokens.parameters.items()} == {
        "intra_op_thread_count": "1",
        "inter_op_thread_count": "1",
    }
    assert tokens.output[0].label_filename == "labels.txt"
    answer = run(
        strings,
        tmp_path / "two" / "edge-single_text",
        {"text": np.array([["a shoe"], ["never late"]], dtype=object)},
    )
    assert answer["label"].shape == (2, 1)


@pytest.mark.usefixtures("quick_check")
def test_a_batch_dependent_form_runs_one_row_at_a_time(
    edge: Callable[[str], Edge], tmp_path: Path, definition: Any
) -> None:
    bundle = Path(shutil.copytree(edge("regression").bundle, tmp_path / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["model"]["neighbour_independent"] = False
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    factory_here("package", bundle, "--format", "triton", "--output", tmp_path / "models")
    tokens = read(definition, tmp_path / "models" / "edge-regression")
    assert (tokens.max_batch_size, tokens.HasField("dynamic_batching")) == (1, False)


def test_a_tokenizer_that_cannot_be_put_into_a_graph(
    edge: Callable[[str], Edge], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise TextModelError("no such tokenizer in a graph")

    monkeypatch.setattr(text_input, "write_text_model", refuse)
    output = tmp_path / "models"
    result = factory_here(
        "package", edge("single").bundle, "--format", "triton", "--output", output
    )
    assert result.exit_code == 0
    assert "no model that reads strings was written: no such tokenizer in a graph" in result.stderr
    assert sorted(path.name for path in output.iterdir()) == [
        "edge-single",
        "labels.json",
        "tokenizer.json",
    ]


def test_names_are_valid_in_urls() -> None:
    assert triton_name("reviews-tiny4.2") == "reviews-tiny4.2"
    assert triton_name("a b/ü") == "a_b__"


def test_a_graph_without_batch_axis_is_rejected(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "ab"]
    node = helper.make_node("Identity", ["a"], ["b"])
    graph = helper.make_graph([node], "fixed", tensors[:1], tensors[1:])
    (tmp_path / "1").mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "1" / "model.onnx"))
    with pytest.raises(PackageError, match="cannot batch"):
        write_model_configuration(tmp_path, TritonMachine(), 32, ())
