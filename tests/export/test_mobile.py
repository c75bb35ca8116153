"""Files in onnxruntime's own format: the same logits, and a list of the operators they need."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.tiny_models import tiny_bert, tiny_split

from factory.errors import ParityError
from factory.export import mobile
from factory.export.mobile import write_mobile
from factory.export.parity import open_session, session_logits
from factory.models.encoding import encode_inputs


def dev_logits(file: Path, student: Any) -> Any:
    rows = encode_inputs(student.tokenizer, tiny_split("dev", 30, seed=8).inputs(), 24)
    return session_logits(open_session(file), rows, 4)


@pytest.mark.parametrize(
    ("form", "operator"), [("fp32", "MatMul"), ("int8-static", "MatMulIntegerToFloat")]
)
def test_the_same_logits_and_the_operators(
    tmp_path: Path, forms: Any, form: Any, operator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, student = forms.file(form), forms.source.student
    (tmp_path / "mobile").mkdir()
    before, root = source.read_bytes(), logging.getLogger()
    logs = (list(root.handlers), root.level)
    facts = write_mobile(source, tmp_path / "mobile", student.model.config)
    assert sorted(path.name for path in (tmp_path / "mobile").iterdir()) == [
        "model.ort",
        "required_operators_and_types.config",
    ]
    assert source.read_bytes() == before
    file = tmp_path / "mobile" / "model.ort"
    assert file.read_bytes()[4:8] == b"ORTM"  # onnxruntime's own format, not ONNX renamed
    found, expected = (dev_logits(path, student) for path in (file, source))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert facts.size_bytes == file.stat().st_size
    operators = (tmp_path / "mobile" / "required_operators_and_types.config").read_text()
    assert operator in operators
    assert ";Conv" not in operators
    assert str(tmp_path) not in operators
    assert capsys.readouterr() == ("", "")
    assert (list(root.handlers), root.level) == logs


def test_other_logits_are_rejected(
    tmp_path: Path, exported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The converted file is compared with the source."""

    def convert_other(source: Path, directory: Path) -> None:
        model = onnx.load(exported.file)
        for tensor in model.graph.initializer:
            if tensor.name == "classifier.bias":
                tensor.raw_data = np.full(3, 7, dtype=np.float32).tobytes()
        (tmp_path / "other").mkdir()
        onnx.save(model, tmp_path / "other" / source.name)
        convert(tmp_path / "other" / source.name, directory)

    convert = mobile._convert
    monkeypatch.setattr(mobile, "_convert", convert_other)
    with pytest.raises(ParityError, match=r"a logit differs by \S+ from model\.onnx"):
        write_mobile(exported.file, tmp_path, exported.student.model.config)


def test_a_damaged_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    (tmp_path / "out").mkdir()
    with pytest.raises(ParityError, match=r"model\.onnx: onnxruntime cannot convert it"):
        write_mobile(tmp_path / "model.onnx", tmp_path / "out", tiny_bert().config)
