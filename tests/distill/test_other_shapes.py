"""Student shapes beside 4 x 312: derived from a teacher of MiniLM's proportions, and exported.

All widths are a quarter of the real ones, for the time's sake; layers and heads are the real ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_models import tiny_bert, tiny_classifier, tiny_split

from factory.distill.matching import map_layers
from factory.distill.student import start_student
from factory.export.onnx import export_onnx
from factory.export.parity import open_session, session_logits
from factory.models.encoding import encode_inputs
from factory.recipe.training import StudentSettings


@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "intermediate"),
    [(6, 256, 8, 1024), (2, 128, 2, 512), (3, 384, 12, 1536)],
)
def test_a_shape_of_the_documentation_starts_from_the_teacher(
    tmp_path: Path, layers: int, hidden: int, heads: int, intermediate: int
) -> None:
    teacher = tiny_classifier(
        tiny_bert(
            hidden_size=96, num_hidden_layers=6, num_attention_heads=12, intermediate_size=384
        )
    )
    texts = tiny_split("train", 60, seed=2).texts
    rows = encode_inputs(teacher.tokenizer, texts, 24)
    settings = StudentSettings(
        layers=layers,
        hidden=hidden // 4,
        heads=heads,
        intermediate=intermediate // 4,
        start="teacher",
    )
    layer_map = map_layers("uniform", layers, 6)
    student = start_student(settings, None, teacher, layer_map, rows, seed=1).model.eval()
    # what the start is for: its logits follow the teacher's over the texts
    found, expected = tiny_classifier(student).logits(texts), teacher.logits(texts)
    alike = [np.corrcoef(found[:, label], expected[:, label])[0, 1] for label in range(3)]
    assert np.mean(alike) > 0.3
    student.save_pretrained(tmp_path / "student")
    export_onnx(tmp_path / "student", tmp_path / "model.onnx", opset=17)
    exported = session_logits(open_session(tmp_path / "model.onnx", threads=1), rows, 8)
    np.testing.assert_allclose(exported, found, atol=1e-4)
