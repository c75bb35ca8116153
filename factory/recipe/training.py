"""The recipe's sections [teacher], [student], [distill], [prune] and [general]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from factory.recipe.section import (
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Section,
)

# Shapes of published small BERTs: TinyBERT-4, XtremeDistil (arXiv 2106.04563), the first half of
# MiniLM-L6, and BERT-tiny (arXiv 1908.08962).
STUDENT_SHAPES: Mapping[str, Mapping[str, int]] = {
    "4x312": {"layers": 4, "hidden": 312, "heads": 12, "intermediate": 1200},
    "6x256": {"layers": 6, "hidden": 256, "heads": 8, "intermediate": 1024},
    "3x384": {"layers": 3, "hidden": 384, "heads": 12, "intermediate": 1536},
    "2x128": {"layers": 2, "hidden": 128, "heads": 2, "intermediate": 512},
}


class TeacherSettings(Section):
    """The large model, and how it is fine-tuned."""

    model: str = Field(description="hub id, local folder, or package:NAME for an installed package")
    revision: str | None = Field(default=None, description="revision of a hub id")
    fine_tune: bool = Field(default=True, description="false: adopt a fine-tuned model")
    labels: Annotated[list[str], Field(min_length=2)] | None = Field(
        default=None, description="names of an adopted teacher's outputs, if its config has none"
    )
    epochs: PositiveFloat = 3.0
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 5e-5
    warmup: Fraction = Field(default=0.1, description="fraction of the steps")
    weight_decay: NonNegativeFloat = 0.01
    seed: int = 42
    class_weights: Literal["none", "balanced"] = Field(
        default="none",
        description="balanced: weight each training row by rows / (classes * rows of its class)",
    )
    min_margin: Fraction = Field(
        default=0.05,
        description="how far above chance the teacher must score on dev before distillation: mean "
        "recall above guessing, minus any accuracy below the majority class's "
        "(multilabel: micro F1 above the best fixed set of labels; regression: Spearman above 0)",
    )


class StudentSettings(Section):
    """The small model's shape and initial weights."""

    shape: Literal["4x312", "6x256", "3x384", "2x128"] | None = Field(
        default=None,
        exclude=True,  # the four numbers it sets are recorded instead
        description="layers x hidden of a known shape; sets layers, hidden, heads and "
        "intermediate unless they are given",
    )
    layers: PositiveInt = 4
    hidden: PositiveInt = 312
    heads: PositiveInt = 12
    intermediate: PositiveInt = 1200
    dropout: Fraction = Field(default=0.0, description="during training; the paper uses 0.1")
    start: str = Field(
        default="teacher",
        description='"teacher", "random", "general", or a checkpoint: hub id, folder, bundle',
    )
    revision: str | None = Field(default=None, description="revision of a hub checkpoint")

    @model_validator(mode="before")
    @classmethod
    def fill_shape(cls, given: Any) -> Any:
        """Fill in the numbers of the named shape; explicit numbers win."""
        shape = given.get("shape") if isinstance(given, Mapping) else None
        return {**STUDENT_SHAPES.get(shape, {}), **given} if isinstance(shape, str) else given

    @model_validator(mode="after")
    def heads_divide(self) -> StudentSettings:
        """Check that all heads have the same width."""
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of heads {self.heads}")
        return self


class IntermediateSettings(Section):
    """Intermediate phase: embeddings, hidden states, attention scores (TinyBERT, eq. 7-9)."""

    epochs: NonNegativeFloat = 3.0
    batch_size: PositiveInt | None = Field(default=None, description="unset: distill.batch_size")
    learning_rate: PositiveFloat = Field(
        default=2e-4,
        description="for a start derived from the teacher; 6e-4 for random weights",
    )
    warmup: Fraction = Field(default=0.1, description="fraction of the steps")
    embedding_weight: NonNegativeFloat = 1.0
    hidden_weight: NonNegativeFloat = 1.0
    attention_weight: NonNegativeFloat = 1.0
    attention: Literal["auto", "scores", "relations"] = Field(
        default="auto",
        description="scores: attention scores head by head, needs equal head counts; relations: "
        "of queries, keys and values (MiniLMv2); auto: scores if the head counts are equal",
    )
    relation_heads: PositiveInt | None = Field(
        default=None,
        description="number of relation heads; must divide both widths; unset: student.heads, or "
        "the largest number up to 48 that divides both",
    )
    layer_weights: Annotated[list[NonNegativeFloat], Field(min_length=2)] | None = Field(
        default=None, description="lambda of the embedding output and of each student layer"
    )
    head_reduction: Literal["mean", "sum"] = Field(
        default="mean", description="of the attention loss over heads; the paper uses the mean"
    )


class PredictionSettings(Section):
    """Prediction phase: the teacher's logits (TinyBERT, eq. 10)."""

    epochs: NonNegativeFloat = 3.0
    batch_size: PositiveInt | None = Field(default=None, description="unset: distill.batch_size")
    learning_rate: PositiveFloat = 3e-5
    warmup: Fraction = Field(default=0.1, description="fraction of the steps")
    temperature: PositiveFloat = Field(
        default=1.0, description="divides both sets of logits; the loss is multiplied by its square"
    )


class DistillSettings(Section):
    """Distillation of the teacher into the student."""

    seed: int = 42
    batch_size: PositiveInt = 32
    weight_decay: NonNegativeFloat = 0.01
    layer_map: Literal["uniform", "top", "bottom"] | list[PositiveInt] = "uniform"
    unlabelled_phases: Literal["both", "prediction"] = Field(
        default="both", description="phases that train on the unlabelled rows"
    )
    holdout_fraction: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        default=0.0,
        description="fraction of train held out from training; the prediction epoch and the seed "
        "that are closest to the teacher on it are kept",
    )
    seeds: PositiveInt = Field(
        default=1,
        description="students to train, with seed, seed + 1, ...; the best is kept",
    )
    baseline: Literal["off", "random", "same"] = Field(
        default="off",
        description="also train the same student on hard labels alone, for as many steps, from "
        "random weights or from the student's own start",
    )
    baseline_learning_rate: PositiveFloat | None = Field(
        default=None,
        description="unset: 6e-4 from random weights, 1e-4 from the student's own start",
    )
    intermediate: IntermediateSettings = IntermediateSettings()
    prediction: PredictionSettings = PredictionSettings()


class GeneralSettings(IntermediateSettings):
    """General distillation: the intermediate losses, from a base teacher over raw text."""

    learning_rate: PositiveFloat = 6e-4
    corpus: str | Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None, description="text file or files: .txt or .jsonl (.gz too)"
    )
    documents: Literal["lines", "blank_lines"] = Field(
        default="lines", description="in .txt: one document per line, or blank lines between them"
    )
    hub: str | None = Field(default=None, description="name of a hub data set, instead of files")
    config: str | None = Field(default=None, description="configuration of the hub data set")
    revision: str | None = Field(default=None, description="revision of the hub data set")
    split: str = Field(default="train", description="split of the hub data set")
    text: str = Field(default="text", description="text column of .jsonl files and hub data sets")
    max_tokens: PositiveInt | None = Field(
        default=None, description="number of tokens to use from the start of the corpus; unset: all"
    )
    max_length: Annotated[int, Field(ge=8, le=512)] = Field(
        default=128, description="tokens per row"
    )
    start: Literal["teacher", "random"] = Field(
        default="teacher", description="initial weights of the general student"
    )
    epochs: PositiveFloat = 1.0
    batch_size: PositiveInt = 32
    weight_decay: NonNegativeFloat = 0.01
    seed: int = 42

    @property
    def corpus_names(self) -> tuple[str, ...]:
        """The corpus files in order; empty for a hub data set."""
        if self.corpus is None:
            return ()
        return (self.corpus,) if isinstance(self.corpus, str) else tuple(self.corpus)

    @model_validator(mode="after")
    def one_corpus(self) -> GeneralSettings:
        """Check that there is exactly one source of raw text."""
        if (self.corpus is None) == (self.hub is None):
            raise ValueError("give either corpus (files) or hub (a data set name)")
        if self.hub is None and (self.config is not None or self.revision is not None):
            raise ValueError("config and revision belong to a hub data set")
        return self


class PruneSettings(Section):
    """Remove feed-forward neurons by importance, then train briefly on the teacher's logits."""

    neurons: PositiveInt = Field(
        description="feed-forward neurons kept in each layer; less than student.intermediate"
    )
    calibration_rows: PositiveInt = Field(
        default=1024, description="training rows used to measure importance"
    )
    epochs: NonNegativeFloat = Field(default=1.0, description="of the training afterwards; 0: none")
    learning_rate: PositiveFloat = Field(
        default=5e-5,
        description="of that training; batch size and temperature are those of distill.prediction",
    )


def _removes_something(prune: PruneSettings | None, info: ValidationInfo) -> PruneSettings | None:
    student = info.data.get("student")  # missing if it failed its own validation
    if prune is not None and student is not None and prune.neurons >= student.intermediate:
        raise ValueError(
            f"neurons {prune.neurons} removes nothing from the student's {student.intermediate} "
            "(student.intermediate); set it lower, or leave out the section"
        )
    return prune


# The recipe must declare this field after `student`.
Pruning = Annotated[PruneSettings | None, AfterValidator(_removes_something)]
