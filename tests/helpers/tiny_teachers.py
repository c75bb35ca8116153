"""Settings for tiny teachers, and a short way to make one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.data.dataset import Dataset
from factory.models.source import ModelSource
from factory.recipe.training import TeacherSettings
from factory.teacher.fine_tune import make_teacher
from helpers.tiny_models import (
    MAX_LENGTH,
    tiny_dataset,
)

SMALL = tiny_dataset(60, 30)


def source_of(folder: Path) -> ModelSource:
    return ModelSource(str(folder), None, "sha256:test")


def adopted(**changes: Any) -> TeacherSettings:
    return TeacherSettings(model="a/model", fine_tune=False, **changes)


def tuned(**changes: Any) -> TeacherSettings:
    fields: dict[str, Any] = {"epochs": 2.0, "batch_size": 16, "learning_rate": 3e-3, "seed": 4}
    return TeacherSettings(model="a/model", **{**fields, **changes})


def make(
    directory: Path, folder: Path, settings: TeacherSettings, dataset: Dataset
) -> dict[str, Any]:
    directory.mkdir(exist_ok=True)
    return make_teacher(directory, source_of(folder), settings, dataset, MAX_LENGTH, "cpu")
