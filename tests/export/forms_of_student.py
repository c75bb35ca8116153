"""Every form of one student, written once for the tests that read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.tiny_models import open_tiny, save_tiny, tiny_bert, tiny_split

from factory.export.forms import FORMS, FormName, FormSource, write_forms
from factory.export.onnx import export_onnx

TRAIN = tiny_split("train", 40, seed=3)


@dataclass(frozen=True, slots=True)
class StudentForms:
    """A student with 8-bit weights in its integer forms; no test may change its folder."""

    folder: Path
    source: FormSource
    facts: dict[str, Any]

    def file(self, name: FormName) -> Path:
        """The file of a form."""
        return self.folder / f"{name}.onnx"


def write_student_forms(folder: Path) -> StudentForms:
    """Two layers, 112 wide, with the tiny vocabulary; the student's folder is `model`."""
    shape = {"hidden_size": 112, "intermediate_size": 160, "num_hidden_layers": 2}
    save_tiny(tiny_bert(seed=4, **shape), folder / "model")
    export_onnx(folder / "model", folder / "model.onnx", opset=17)
    source = FormSource(folder / "model.onnx", open_tiny(folder / "model"), TRAIN, 12, 0.8, False)
    return StudentForms(folder, source, write_forms(folder, list(FORMS), source))
