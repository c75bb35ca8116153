"""Inspect a data file and write a recipe for it; report every finding and decision."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factory.data.load import load_dataset
from factory.data.messages import count, places
from factory.errors import DataError, FactoryError
from factory.recipe.data import DataSettings
from factory.recipe.task import TASK_TRAITS
from factory.scaffold.clean import Rows, clean, label_counts, write_rows
from factory.scaffold.columns import Roles, find_roles
from factory.scaffold.defaults import (
    OFFLINE_TEACHER,
    Choices,
    choose,
    choose_teacher,
    token_lengths,
)
from factory.scaffold.sniff import Sheet, read_sheet
from factory.scaffold.template import write_template
from serving.bundle import Task

FEWEST_ROWS = 20
SHOWN_CLASSES = 8


@dataclass(slots=True)
class Start:
    """Findings about the data and decisions for the recipe, one line each."""

    recipe: Path
    found: list[str] = field(default_factory=list)
    decided: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """The start as JSON data."""
        return {
            "recipe": str(self.recipe),
            "found": self.found,
            "decided": self.decided,
            "data": self.settings,
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

    Where a file has rows that a run refuses (without a text or a label, also in dev or test), a
    cleaned copy is written to RECIPE-SPLIT.jsonl; the file itself stays unchanged.

    Args:
        recipe: the file to write; must not exist.
        text: the text column or the two of a pair; empty: determined, as are `label` and `task`.
        teacher: unset: a BERT of the hub, or the packaged model when `offline`.

    Raises:
        RecipeError: a column does not exist or cannot be determined.
        DataError: the data cannot be used for training.
        FactoryError: the recipe exists, or there is no teacher.
    """
    if recipe.exists():
        raise FactoryError(f"{recipe}: exists already; give another path or remove it")
    start = Start(recipe)
    sheets = {"train": read_sheet(train, [*text, *([label] if label is not None else [])])}
    roles = find_roles(sheets["train"], text, label, task)
    for name, path in (("dev", dev), ("test", test)):
        if path is not None:
            sheets[name] = read_sheet(path, [*roles.text, roles.label])
            find_roles(sheets[name], roles.text, roles.label, roles.task)
    held = {s: clean(sheet, roles) for s, sheet in sheets.items() if s != "train"}
    elsewhere = {key for rows in held.values() for key in rows.texts}
    rows = {"train": clean(sheets["train"], roles, elsewhere), **held}
    _describe(sheets, rows, roles, start)
    _require_enough(train, rows["train"], roles)
    model, reason = choose_teacher(teacher, offline)
    start.decided += [*roles.reasons, f"teacher {model}: {reason}"]
    choices = _choices(rows, roles, model, recipe.parent)
    start.decided += choices.reasons
    start.settings = _data_settings(sheets, rows, roles, choices, start)
    write_template(
        recipe,
        train=start.settings["train"],
        dev=start.settings.get("dev"),
        test=start.settings.get("test"),
        text_columns=roles.text,
        label=roles.label,
        task=roles.task,
        teacher=model,
        separator=roles.separator,
        quoting=start.settings.get("quoting"),
        allow_duplicates="allow_duplicates" in start.settings,
        choices=choices,
    )
    return start


def _choices(rows: dict[str, Rows], roles: Roles, teacher: str, base: Path) -> Choices:
    texts = rows["train"].texts
    lengths, counted = token_lengths(texts, teacher, base)
    dev_rows = len(rows["dev"].texts) if "dev" in rows else None
    classes = label_counts(rows["train"].labels)
    packaged = teacher == OFFLINE_TEACHER
    return choose(lengths, counted, len(texts), classes, dev_rows, roles.task, packaged)


def _describe(sheets: dict[str, Sheet], rows: dict[str, Rows], roles: Roles, start: Start) -> None:
    for split, sheet in sheets.items():
        rows_found = f"{split} {sheet.name}: {count(len(sheet), 'row')}"
        columns = ", ".join(sheet.columns)
        start.found.append(f"{rows_found}, {sheet.file.format}, columns {columns}")
        start.found += [*sheet.notes, *rows[split].notes]
    texts = rows["train"].texts
    repeats = len(texts) - len(set(texts))
    if repeats:
        start.found.append(f"{count(repeats, 'row repeats', 'rows repeat')} an earlier text")
    classes = label_counts(rows["train"].labels).most_common()
    shown = ", ".join(f"{name} {number:,}" for name, number in classes[:SHOWN_CLASSES])
    if classes:
        more = f" and {len(classes) - SHOWN_CLASSES} more" if len(classes) > SHOWN_CLASSES else ""
        start.found.append(f"{count(len(classes), 'label')}: {shown}{more}")
        alone = [name for name, number in classes if number == 1]
        if alone:
            start.found.append(f"labels with a single row, none in dev: {', '.join(alone[:8])}")
    else:
        numbers = sorted(x for x in rows["train"].labels if isinstance(x, float))
        if numbers:
            start.found.append(f"numbers from {numbers[0]:g} to {numbers[-1]:g}")


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
    sheets: dict[str, Sheet], rows: dict[str, Rows], roles: Roles, choices: Choices, start: Start
) -> dict[str, Any]:
    """The table [data]: the files as they are where a run accepts them, else cleaned copies."""
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
        start.decided.append(f"{where}: also in dev; kept, with data.allow_duplicates = true")
        settings["allow_duplicates"] = True
    folder = start.recipe.parent
    files = {
        s: os.path.relpath(sheet.file.path.resolve(), folder.resolve())
        for s, sheet in sheets.items()
    }
    found = sheets["train"].file.format
    quoting = {}
    if found.quoting not in (None, "none" if found.delimiter == "\t" else "standard"):
        quoting = {"quoting": found.quoting}
    if not any(split.notes for split in rows.values()):
        try:
            _load(settings | files | quoting, folder)
            return settings | files | quoting
        except DataError:
            pass  # what a copy does not mend is an error below
    copies = {s: start.recipe.with_name(f"{start.recipe.stem}-{s}.jsonl") for s in files}
    for split, path in copies.items():
        write_rows(path, rows[split], roles)
        original = sheets[split].name
        start.decided.append(f"{path}: cleaned copy of {original}, which stays unchanged")
    try:
        _load(settings | {split: path.name for split, path in copies.items()}, folder)
    except DataError:
        for path in copies.values():
            path.unlink()
        raise
    return settings | {split: path.name for split, path in copies.items()}


def _load(settings: dict[str, Any], folder: Path) -> None:
    # local files need no cache
    load_dataset(DataSettings(**settings), folder, Path(), lambda _: None)
