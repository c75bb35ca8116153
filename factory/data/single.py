"""One labelled file, read for scoring with labels that are already fixed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.data.checks import check_texts
from factory.data.dataset import Split, Task
from factory.data.labels import encode
from factory.data.reading import confirm, read_file
from factory.data.source import local_files
from factory.data.telling import Findings, nearest
from factory.errors import DataError
from factory.recipe.data import DataSettings


def load_split(
    path: Path,
    text_columns: list[str],
    label: str,
    label_separator: str,
    task: Task,
    labels: tuple[str, ...],
    cache_directory: Path,
) -> Split:
    """Read every row of a file whose labels, in order, are the model's.

    Raises:
        DataError: with every problem, each with its line; labels the model lacks included.
    """
    settings = DataSettings(
        train=str(path.absolute()),
        dev_fraction=0.5,  # never drawn: the file is read whole
        text=text_columns[0] if len(text_columns) == 1 else text_columns,
        label=label,
        label_separator=label_separator if task == "multilabel" else ",",
        labels=None if task == "regression" else list(labels),
        task=task,
    )
    if not path.is_file():
        near = nearest(path.name, (entry.name for entry in path.parent.glob("*")))
        raise DataError(str(path), [f"no such file{near}"])
    findings = Findings()
    (file,) = local_files(settings, path.parent)
    table = read_file(file, settings, cache_directory, findings)
    if table is not None:
        check_texts(table, settings.text_columns, settings.allow_empty, findings)
        targets = encode({path.stem: table}, settings, findings).targets[path.stem]
    if table is None or findings.problems:
        raise DataError(f"{path} cannot be scored", findings.problems)
    table = confirm(file, table, settings, cache_directory)
    texts = [[str(text) for text in column] for column in table.texts]
    checked: Any = [target for target in targets if target is not None]
    return Split(path.stem, texts[0], texts[1] if len(texts) == 2 else None, checked)
