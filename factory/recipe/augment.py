"""The recipe's section [augment]: examples made from the training rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from factory.recipe.section import PositiveInt, Section

CandidateSource = Literal["mlm", "vectors", "embeddings"]


class AugmentSettings(Section):
    """Words of the training rows replaced by likely others (TinyBERT, algorithm 1)."""

    mode: Literal["corrected", "paper"] = Field(
        default="corrected",
        description="paper: algorithm 1 to the letter; corrected: the word itself is no candidate, "
        "case, spacing and punctuation stay, any script",
    )
    sources: Annotated[list[CandidateSource], Field(min_length=1)] | None = Field(
        default=None,
        description="who proposes words, the first that knows a word decides; unset: mlm and "
        "vectors where they are named, then the teacher's own embeddings (not in paper mode "
        "with vectors)",
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
        default=None, description="read this many words from the file's beginning; unset: all"
    )
    copies: PositiveInt | None = Field(
        default=None, description="variants drawn per row; unset: by the number of training rows"
    )
    candidates: PositiveInt = Field(default=15, description="likely words to draw from, per word")
    replace_probability: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=0.4, description="of each word that may be replaced"
    )
    masked_share: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=0.15,
        description="of a text's words and marks, how many are hidden from the mlm at once, like "
        "the share it was trained with; corrected only, paper: one word",
    )
    sides: Literal["any", "both", "first", "second"] = Field(
        default="any",
        description="of a sentence pair, what a variant changes; any: drawn for each variant",
    )
    max_rows_per_class: PositiveInt | None = Field(
        default=None, description="most variants to keep of each class, drawn by seed"
    )
    seed: int = 42

    @property
    def source_order(self) -> tuple[CandidateSource, ...]:
        """Who proposes words, in order."""
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
        """Every source has its model or file, and every model or file is used."""
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
                'mode = "paper" takes words from an mlm; set augment.mlm, or mode = "corrected"'
            )
        if self.mlm_revision is not None and self.mlm is None:
            raise ValueError("mlm_revision belongs to an mlm on the hub")
        return self
