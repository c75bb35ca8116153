"""The C++ program on files that read strings: compiled here, against a library of any version."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.edge_bundles import EXAMPLES, Edge, check_answers, json_lines, run_example
from onnx import TensorProto, helper, numpy_helper

from factory.export.text import write

FOLDER = EXAMPLES / "cpp"
PLACES = [os.environ.get("ONNXRUNTIME_INCLUDE", "")]
PLACES += ["/usr/include/onnxruntime", "/usr/local/include/onnxruntime"]
HEADERS = next((p for p in PLACES if p and (Path(p) / "onnxruntime_cxx_api.h").is_file()), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed"),
    pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed"),
    pytest.mark.skipif(
        HEADERS is None,
        reason="no headers: install libonnxruntime-dev, or set ONNXRUNTIME_INCLUDE",
    ),
]


def wheel_library(directory: Path) -> Path:
    """onnxruntime's library of the Python package, under the name programs look for."""
    import onnxruntime

    (file,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    link = directory / "libonnxruntime.so.1"
    link.symlink_to(file)
    return link


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = tmp_path_factory.mktemp("cpp")
    library = os.environ.get("ONNXRUNTIME_LIBRARY") or wheel_library(build)
    places = (f"-DONNXRUNTIME_INCLUDE={HEADERS}", f"-DONNXRUNTIME_LIBRARY={library}")
    run_example("cmake", "-S", FOLDER, "-B", build, *places)
    said = run_example("cmake", "--build", build)
    assert "warning" not in said
    return build / "classify"


def save_echo(
    file: Path, *, pair: bool = False, outputs: tuple[str, ...] = ("label", "scores")
) -> Path:
    """A graph with the interface of a text model: the label is the text itself."""
    nodes = [
        helper.make_node("Concat", ["text", "text_pair"] if pair else ["text"], ["both"], axis=0),
        helper.make_node("Identity", ["both"], ["label"]),
        helper.make_node("Identity", ["constant"], ["scores"]),
    ]
    kinds = {"label": (TensorProto.STRING, ["n"]), "scores": (TensorProto.FLOAT, [1, 2])}
    inputs = ["text", "text_pair"] if pair else ["text"]
    graph = helper.make_graph(
        nodes,
        "echo",
        [helper.make_tensor_value_info(name, TensorProto.STRING, ["b"]) for name in inputs],
        [helper.make_tensor_value_info(name, *kinds[name]) for name in outputs],
        [numpy_helper.from_array(np.float32([[0.25, 1e-7]]), "constant")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"labels": '["a", "é"]'})
    onnx.save(model, file)
    return file


@pytest.fixture(scope="module")
def text_model(
    edge: Callable[[str], Edge], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The file that reads strings of a bundle; its own tests compare every character."""

    def make(kind: str) -> Path:
        file = tmp_path_factory.mktemp("text") / "model.onnx"
        few = functools.partial(write.write_text_model, strings=200, code_points=range(1000))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(write, "write_text_model", few)
            write.write_bundle_text_model(edge(kind).bundle, file)
        return file

    return make


@pytest.mark.parametrize("kind", ["single", "pair", "multilabel", "regression"])
def test_the_answers_are_the_servers(
    edge: Callable[[str], Edge], text_model: Callable[[str], Path], program: Path, kind: str
) -> None:
    given = edge(kind)
    expected = given.expected()
    found = json_lines(run_example(program, text_model(kind), *given.arguments()))
    for answer in found:
        answer["scores"] = dict(zip(answer.pop("labels"), answer["scores"], strict=True))
        if kind == "regression":  # a value has no label
            assert answer["label"] is None
            answer["label"] = "value"
    check_answers(found, expected)


def test_strings_are_passed_unchanged(program: Path, tmp_path: Path) -> None:
    texts = ['say "hi" \\ once', "Café 漢字 😀", "", "line\nand\x01control", "x" * 5000]
    lines = json_lines(run_example(program, save_echo(tmp_path / "echo.onnx"), *texts))
    assert [line["label"] for line in lines] == texts
    for line in lines:
        assert line["labels"] == ["a", "é"]
        assert line["scores"] == pytest.approx([0.25, 1e-7], rel=1e-6)


def test_a_pair_is_split_at_the_tab(program: Path, tmp_path: Path) -> None:
    file = save_echo(tmp_path / "pair.onnx", pair=True)
    (line,) = json_lines(run_example(program, file, "one\ttwo\tthree"))
    assert line["label"] == "one"
    said = run_example(program, file, "no tab", code=1)
    assert 'error: this model takes pairs: put a tab between the two texts of "no tab"' in said


def test_a_model_without_labels_answers_scores(program: Path, tmp_path: Path) -> None:
    file = save_echo(tmp_path / "scores.onnx", outputs=("scores",))
    (line,) = json_lines(run_example(program, file, "text"))
    assert line["label"] is None


def test_errors(program: Path, edge: Callable[[str], Edge], tmp_path: Path) -> None:
    assert "usage: classify MODEL TEXT ..." in run_example(program, code=2)
    said = run_example(program, tmp_path / "none.onnx", "a", code=1)
    assert said.endswith("none.onnx: no such file; give the ONNX file of a text model\n")
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    said = run_example(program, tmp_path / "bad.onnx", "a", code=1)
    assert "bad.onnx: onnxruntime cannot load it: " in said
    assert said.count("\n") == 1
    said = run_example(program, edge("single").bundle / "onnx" / "model.onnx", "a", code=1)
    assert "takes input_ids, attention_mask, token_type_ids and gives logits, not text" in said
    assert "factory package BUNDLE --format text --output DIRECTORY" in said


def test_cmake_reports_what_is_missing(tmp_path: Path) -> None:
    options = ("-S", FOLDER, "-B", tmp_path)
    wrong = f"-DONNXRUNTIME_INCLUDE={tmp_path}"
    said = run_example("cmake", *options, wrong, code=1)
    assert "set ONNXRUNTIME_INCLUDE" in " ".join(said.split())  # it breaks lines
    places = (f"-DONNXRUNTIME_INCLUDE={HEADERS}", "-DONNXRUNTIME_LIBRARY=/none/lib.so")
    said = run_example("cmake", *options, *places, code=1)
    assert "set ONNXRUNTIME_LIBRARY" in " ".join(said.split())
