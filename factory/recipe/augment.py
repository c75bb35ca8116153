"""The recipe's section [augment]: augmented examples of the training rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from factory.recipe.section import PositiveInt, Section

CandidateSource = Literal["mlm", "vectors", "embeddings"]


class AugmentSettings(Section):
    """Replaces words of the training rows with likely others (TinyBERT, algorithm 1)."""

    mode: Literal["corrected", "paper"] = Field(
        default="corrected",
        description="paper: algorithm 1 as published; corrected: the word itself is not a "
        "candidate, case, spacing and punctuation are preserved, any script",
    )
    sources: Annotated[list[CandidateSource], Field(min_length=1)] | None = Field(
        default=None,
        description="sources of words; the first that has a word is used; unset: mlm and vectors "
        "if set, then the teacher's own embeddings (not in paper mode with vectors)",
    )
    mlm: str | None = Field(
        default=None,
        description="BERT with a masked-language-model head: hub id, folder or package:NAME",
    )
    mlm_revision: str | None = Field(default=None, description="revision of a hub id")
    vectors: str | None = Field(
        default=None,
        description="word vectors: GloVe, word2vec or fastText file, text or binary (.gz too)",
    )
    vectors_limit: PositiveInt | None = Field(
        default=None,
        description="number of words to read from the beginning of the file; unset: all",
    )
    copies: PositiveInt | None = Field(
        default=None, description="examples drawn per row; unset: by the number of training rows"
    )
    candidates: PositiveInt = Field(default=15, description="number of likely words to choose from")
    replace_probability: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=0.4, description="for each replaceable word"
    )
    masked_share: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=0.15,
        description="share of a text's words and punctuation hidden from the mlm at once, similar "
        "to its training; corrected only (paper: one word)",
    )
    sides: Literal["any", "both", "first", "second"] = Field(
        default="any",
        description="texts of a pair that an example changes; any: drawn for each example",
    )
    max_rows_per_class: PositiveInt | None = Field(
        default=None, description="maximum number of examples per class, drawn by seed"
    )
    seed: int = 42

    @property
    def source_order(self) -> tuple[CandidateSource, ...]:
        """The sources of words, in order."""
        if self.sources is not None:
            return tuple(self.sources)
        named: list[CandidateSource] = []
        if self.mlm is not None:
            named.append("mlm")
        if self.vectors is not None:
            named.append("vectors")
        # algorithm 1 has no third source
        return (
            tuple(named) if self.mode == "paper" and "vectors" in named else (*named, "embeddings")
        )

    @model_validator(mode="after")
    def sources_named(self) -> AugmentSettings:
        """Check that every source has its model or file, and that every model or file is used."""
        order = self.source_order
        if len(set(order)) < len(order):
            raise ValueError("sources names one source twice")
        for source, value in (("mlm", self.mlm), ("vectors", self.vectors)):
            if source in order and value is None:
                raise ValueError(f'sources has "{source}", so set augment.{source}')
            if source not in order and value is not None:
                raise ValueError(f'augment.{source} is set, so add "{source}" to sources')
        if self.mode == "paper" and "mlm" not in order:
            raise ValueError(
                'mode = "paper" requires a masked language model; set augment.mlm, or '
                'mode = "corrected"'
            )
        if self.mlm_revision is not None and self.mlm is None:
            raise ValueError("mlm_revision requires augment.mlm")
        return self
