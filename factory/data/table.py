"""One split as it was read, before labels become numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from factory.data.telling import places
from factory.recipe.data import DataSettings

UNLABELLED_SPLIT = "unlabelled"  # what the rows read without labels are called


@dataclass(frozen=True, slots=True)
class Table:
    """The columns of one split that matter, and where each row stands.

    Args:
        split: train, dev, test or unlabelled.
        source: the file or hub split, as messages name it.
        unit: what `numbers` count.
        numbers: line (or row) number of each row, from 1; a record over several lines
            counts where it begins.
        texts: one or two columns of texts; None is a null of the source.
        labels: the label column, as typed by the source; empty for unlabelled rows.
        typed: whether the source tells numbers from text (csv and tsv do not).
        class_names: names the source declares for its integer labels.
        header: all column names of a csv or tsv file, in order.
    """

    split: str
    source: str
    unit: Literal["line", "row"]
    numbers: list[int]
    texts: tuple[list[str | None], ...]
    labels: list[object]
    typed: bool
    class_names: tuple[str, ...] | None = None
    header: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def places(self, rows: Sequence[int]) -> str:
        """Where the given rows (indices) stand: "dev.tsv, lines 2, 3"."""
        return places(self.source, self.unit, [self.numbers[row] for row in rows])

    def keys(self) -> list[tuple[str | None, ...]]:
        """What makes two rows duplicates: the text, or both texts."""
        return list(zip(*self.texts, strict=True))


def wanted_columns(split: str, settings: DataSettings) -> list[tuple[str, str]]:
    """Each column to read with the data setting that names it; unlabelled rows need no label."""
    wanted = [(name, "text") for name in settings.text_columns]
    return wanted if split == UNLABELLED_SPLIT else [*wanted, (settings.label, "label")]
