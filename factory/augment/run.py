"""The augment stage: augmented examples of the training rows, in parts, resumed after a kill."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from factory.augment.algorithm_1 import Algorithm1
from factory.augment.contextual import ContextualMode
from factory.augment.proposers import Proposers
from factory.augment.rows import AugmentedExample, SourceRows, split_rows
from factory.augment.shards import INDEX_NAME, merge_parts, part_file, parts_of, write_part
from factory.augment.words import WordSplitter
from factory.data.dataset import Split
from factory.errors import RecipeError
from factory.recipe.augment import AugmentSettings
from factory.runtime import distributed
from factory.runtime.environment import trim_heap
from factory.runtime.progress import bar
from factory.store import read_json, write_json

# Copies by number of training rows, after the reference: 30 for CoLA, MRPC, RTE and STS-B (up to
# 8,551 rows), 20 for SST-2 and QNLI (up to 104,743; also the paper's N_a), and 10 for QQP and MNLI
# (from 363,846).
COPIES_BY_ROWS = ((10_000, 30), (200_000, 20))
COPIES_OF_MORE_ROWS = 10


def augment(
    directory: Path, train: Split, settings: AugmentSettings, proposers: Proposers
) -> dict[str, Any]:
    """Write augmented examples of the training rows below `directory`.

    Each part of the rows is written to its own file; the ranks of a distributed run share the
    parts. Rank 0 then merges the parts into shards and removes them. A killed run resumes, with
    any number of processes, and gives the same bytes.

    Args:
        directory: may contain finished parts of an interrupted run.

    Returns:
        Facts: rows, copies per row, examples, dropped examples by reason, share of words
        replaced, words replaced by source, shards.

    Raises:
        RecipeError: `max_rows_per_class` is set and the task is regression.
        FactoryError: the masked language model runs out of memory on a single text.
    """
    if not distributed.on_main_process(lambda: (directory / INDEX_NAME).is_file()):
        _write_parts(directory, train, ExampleMaker(train, settings, proposers))
        distributed.barrier()
    facts: dict[str, Any] = distributed.on_main_process(lambda: _finish(directory, train, settings))
    return facts


def copies_for(rows: int, settings: AugmentSettings) -> int:
    """Number of copies drawn of each of `rows` training rows."""
    if settings.copies is not None:
        return settings.copies
    return next((n for most, n in COPIES_BY_ROWS if rows <= most), COPIES_OF_MORE_ROWS)


class ExampleMaker:
    """Makes the examples of any training rows; the order of the calls does not matter."""

    def __init__(self, train: Split, settings: AugmentSettings, proposers: Proposers) -> None:
        """Prepare the recipe's mode.

        Raises:
            RecipeError: `max_rows_per_class` is set and the task is regression.
        """
        if settings.max_rows_per_class is not None and isinstance(train.targets[0], float):
            problem = "the task is regression, which has no classes; remove the key"
            raise RecipeError("augment.max_rows_per_class", [problem])
        self._train = train
        self._proposers = proposers
        tokenizer = proposers.tokenizer if proposers.mlm is None else proposers.mlm.tokenizer
        self._splitter = WordSplitter(tokenizer)
        self._copies = copies_for(len(train), settings)
        self._mode: Algorithm1 | ContextualMode
        if settings.mode == "paper":
            self._mode = Algorithm1(settings, proposers, self._splitter)
        else:
            self._mode = ContextualMode(settings, proposers)

    def split(self, rows: range) -> SourceRows:
        """The words of some rows."""
        tokenizer, max_length = self._proposers.tokenizer, self._proposers.max_length
        return split_rows(self._train, rows, self._splitter, tokenizer, max_length)

    def make(self, rows: range) -> tuple[list[AugmentedExample], Counter[str]]:
        """The examples of some rows, by row and copy, and counts of copies and words.

        Examples equal to their row, or to an earlier example of it, are dropped.

        Returns:
            The counts are `drawn` (copies of rows); of these `unchanged` and `duplicate`, which
            are dropped; `words` (replaceable words in all copies); `from:SOURCE` (words replaced).
        """
        source = self.split(rows)
        drawn = self._mode.draw(source, self._copies)
        originals = zip(*([split.text for split in side] for side in source.sides), strict=True)
        seen = set(enumerate(originals, rows.start))
        examples = []
        for example in drawn.examples:
            if (example.source_row, example.texts) not in seen:
                seen.add((example.source_row, example.texts))
                examples.append(example)
        copies = self._copies * len(rows)
        counts = Counter(
            drawn=copies,
            words=self._copies * len(source),
            unchanged=copies - len(drawn.examples),
            duplicate=len(drawn.examples) - len(examples),
        )
        counts.update({f"from:{name}": count for name, count in drawn.replaced.items()})
        return examples, counts


def _write_parts(directory: Path, train: Split, maker: ExampleMaker) -> None:
    part_file(directory, 0).parent.mkdir(parents=True, exist_ok=True)
    rank = distributed.current()
    mine = list(enumerate(parts_of(len(train))))[rank.rank :: rank.world_size]
    todo = [(number, rows) for number, rows in mine if not part_file(directory, number).is_file()]
    total = sum(len(rows) for _, rows in mine)
    done = total - sum(len(rows) for _, rows in todo)
    with bar("augmenting", total, "row", initial=done) as progress:
        for number, rows in todo:
            examples, counts = maker.make(rows)
            write_part(part_file(directory, number), examples, counts, train.text_pairs is not None)
            trim_heap()
            progress.advance(len(rows))


def _finish(directory: Path, train: Split, settings: AugmentSettings) -> dict[str, Any]:
    """Merge the parts, write the index, remove the parts; skips finished steps."""
    file = directory / INDEX_NAME
    if not file.is_file():
        shards, counts = merge_parts(directory, len(parts_of(len(train))), train, settings)
        sources = sorted(name for name in counts if name.startswith("from:"))
        replaced = {name.removeprefix("from:"): counts[name] for name in sources}
        share = sum(replaced.values()) / counts["words"] if counts["words"] else 0.0
        facts = {
            "rows": len(train),
            "copies": copies_for(len(train), settings),
            "examples": counts["examples"],
            "dropped": {name: counts[name] for name in ("unchanged", "duplicate", "cap")},
            "words_replaced": round(share, 6),
            "replaced_by_source": replaced,
            "shards": len(shards),
        }
        write_json(file, {"pairs": train.text_pairs is not None, "shards": shards, "facts": facts})
    shutil.rmtree(part_file(directory, 0).parent, ignore_errors=True)
    written: dict[str, Any] = read_json(file)["facts"]
    return written
