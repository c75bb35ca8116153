"""One tiny student exported once, for every test that only reads or copies it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from forms_of_student import StudentForms, write_student_forms

from factory.models.classifier import TorchClassifier


@dataclass(frozen=True, slots=True)
class Exported:
    """A saved student, opened, and its ONNX file; no test may change either."""

    folder: Path
    file: Path
    student: TorchClassifier


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, trained_folder: Path) -> Exported:
    """The learned tiny BERT as ONNX."""
    from helpers.tiny_models import open_tiny

    from factory.export.onnx import export_onnx

    file = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_onnx(trained_folder, file, opset=17)
    return Exported(trained_folder, file, open_tiny(trained_folder))


@pytest.fixture(scope="session")
def forms(tmp_path_factory: pytest.TempPathFactory) -> StudentForms:
    """Every form of one student."""
    return write_student_forms(tmp_path_factory.mktemp("forms"))
