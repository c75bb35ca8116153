"""Inspect a data file and write a recipe for it; report every finding and decision."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.data.load import load_dataset
from factory.data.messages import count, places
from factory.errors import DataError, FactoryError
from factory.recipe.data import DataSettings
from factory.recipe.task import TASK_TRAITS
from factory.scaffold.clean import Rows, clean, label_counts, write_rows
from factory.scaffold.columns import Roles, Sheet, find_roles, read_sheet
from factory.scaffold.defaults import Choices, choose, choose_teacher
from factory.scaffold.template import write_template
from serving.bundle import Task

FEWEST_ROWS = 20
SHOWN_CLASSES = 8


@dataclass(frozen=True, slots=True)
class Start:
    """Findings about the data and decisions for the recipe, one line each."""

    recipe: Path
    found: tuple[str, ...]
    decided: tuple[str, ...]
    data: DataSettings

    def facts(self) -> dict[str, Any]:
        """The start as JSON data."""
        return {
            "recipe": str(self.recipe),
            "found": self.found,
            "decided": self.decided,
            "data": self.data.model_dump(exclude_unset=True),
        }


def start_recipe(
    recipe: Path,
    train: Path,
    *,
    dev: Path | None = None,
    test: Path | None = None,
    text: Sequence[str] = (),
    label: str | None = None,
    task: Task | None = None,
    teacher: str | None = None,
    offline: bool = False,
) -> Start:
    """Inspect the data and write a commented recipe that `factory run` accepts.

    If a run would reject rows of a file (no text or no label, or also in dev or test), a cleaned
    copy is written to RECIPE-SPLIT.jsonl; the file itself stays unchanged.

    Args:
        recipe: the file to write; must not exist.
        text: the text column, or the two of a pair; empty: determined, as are `label` and `task`.
        teacher: unset: a BERT of the hub, or the packaged model if `offline`.

    Raises:
        RecipeError: a column does not exist or cannot be determined.
        DataError: the data cannot be used for training.
        FactoryError: the recipe exists, or there is no teacher.
    """
    if recipe.exists():
        raise FactoryError(f"{recipe}: exists already; give another path or remove it")
    sheets = {"train": read_sheet(train, [*text, *([label] if label is not None else [])])}
    roles = find_roles(sheets["train"], text, label, task)
    for name, path in (("dev", dev), ("test", test)):
        if path is not None:
            sheets[name] = read_sheet(path, [*roles.text, roles.label])
            find_roles(sheets[name], roles.text, roles.label, roles.task)
    held = {s: clean(sheet, roles) for s, sheet in sheets.items() if s != "train"}
    elsewhere = {key for rows in held.values() for key in rows.texts}
    rows = {"train": clean(sheets["train"], roles, elsewhere), **held}
    found = _findings(sheets, rows)
    _require_enough(train, rows["train"], roles)
    model, reason = choose_teacher(teacher, offline)
    dev_rows = len(rows["dev"].texts) if "dev" in rows else None
    classes = label_counts(rows["train"].labels)
    choices = choose(rows["train"].texts, classes, dev_rows, roles.task, model, recipe.parent)
    decided = [*roles.reasons, f"teacher {model}: {reason}", *choices.reasons]
    data = _data_settings(sheets, rows, roles, choices, recipe, decided)
    write_template(recipe, data, model, choices)
    return Start(recipe, tuple(found), tuple(decided), data)


def _findings(sheets: Mapping[str, Sheet], rows: Mapping[str, Rows]) -> list[str]:
    found: list[str] = []
    for split, sheet in sheets.items():
        rows_found = f"{split} {sheet.name}: {count(len(sheet.numbers), 'row')}"
        found.append(f"{rows_found}, {sheet.file.format}, columns {', '.join(sheet.columns)}")
        found += [*sheet.notes, *rows[split].notes]
    texts = rows["train"].texts
    repeats = len(texts) - len(set(texts))
    if repeats:
        found.append(f"{count(repeats, 'row repeats', 'rows repeat')} an earlier text")
    classes = label_counts(rows["train"].labels).most_common()
    if classes:
        shown = ", ".join(f"{name} {number:,}" for name, number in classes[:SHOWN_CLASSES])
        more = f" and {len(classes) - SHOWN_CLASSES} more" if len(classes) > SHOWN_CLASSES else ""
        found.append(f"{count(len(classes), 'label')}: {shown}{more}")
        alone = [name for name, number in classes if number == 1]
        if alone:
            found.append(f"labels with a single row, none in dev: {', '.join(alone[:8])}")
    elif numbers := [x for x in rows["train"].labels if isinstance(x, float)]:
        found.append(f"numbers from {min(numbers):g} to {max(numbers):g}")
    return found


def _require_enough(train: Path, rows: Rows, roles: Roles) -> None:
    problems: list[str] = []
    if len(rows.texts) < FEWEST_ROWS:
        problems.append(
            f"{train}: {count(len(rows.texts), 'row')} with text and label; at least "
            f"{FEWEST_ROWS} are required, and a few hundred for a useful model: add rows"
        )
    classes = label_counts(rows.labels)
    if TASK_TRAITS[roles.task].has_labels and len(classes) < 2:
        problems.append(
            f"{train}: column {roles.label!r} holds {count(len(classes), 'class', 'classes')}; "
            "at least 2 are required: add rows of another class, or give another --label"
        )
    if problems:
        raise DataError("the data cannot be used for training", [*problems, *rows.notes])


def _data_settings(
    sheets: Mapping[str, Sheet],
    rows: Mapping[str, Rows],
    roles: Roles,
    choices: Choices,
    recipe: Path,
    decided: list[str],
) -> DataSettings:
    """The table [data]; names cleaned copies if a run would reject the files themselves."""
    settings: dict[str, Any] = {
        "text": roles.text[0] if len(roles.text) == 1 else list(roles.text),
        "label": roles.label,
        "task": roles.task,
        "max_length": choices.max_length,
    }
    if TASK_TRAITS[roles.task].has_label_sets:
        settings["label_separator"] = roles.separator
    if choices.dev_fraction is not None:
        settings["dev_fraction"] = choices.dev_fraction
    if len(rows) == 3 and (shared := set(rows["dev"].texts) & set(rows["test"].texts)):
        test = rows["test"]
        lines = [n for n, text in zip(test.numbers, test.texts, strict=True) if text in shared]
        where = places(sheets["test"].name, sheets["test"].file.unit, lines)
        decided.append(f"{where}: also in dev; kept, with data.allow_duplicates = true")
        settings["allow_duplicates"] = True
    folder = recipe.parent.resolve()
    if not any(split.notes for split in rows.values()):
        files = {s: os.path.relpath(one.file.path.resolve(), folder) for s, one in sheets.items()}
        found = sheets["train"].file.format
        if found.quoting not in (None, "none" if found.delimiter == "\t" else "standard"):
            files["quoting"] = found.quoting
        data = DataSettings.model_validate(settings | files)
        try:
            _load(data, folder)
            return data
        except DataError:
            pass  # a problem that the copies do not solve is raised below
    copies = {s: recipe.with_name(f"{recipe.stem}-{s}.jsonl") for s in sheets}
    for split, path in copies.items():
        write_rows(path, rows[split], roles)
        original = sheets[split].name
        decided.append(f"{path}: cleaned copy of {original}, which stays unchanged")
    data = DataSettings.model_validate(settings | {s: path.name for s, path in copies.items()})
    try:
        _load(data, folder)
    except DataError:
        for path in copies.values():
            path.unlink()
        raise
    return data


def _load(data: DataSettings, folder: Path) -> None:
    load_dataset(data, folder, Path(), lambda _: None)  # local files need no cache
