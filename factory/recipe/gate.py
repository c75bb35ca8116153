"""The recipe's sections [evaluate] and [gate]: thresholds, metrics and rules."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from factory.recipe.section import Fraction, PositiveFloat, PositiveInt, Section
from factory.recipe.task import ClassificationMetric, MultilabelMetric, RegressionMetric


class GateSettings(Section):
    """Rules for the student and the bundle, as `factory.evaluation.gate` defines them.

    Rules that are left out are not checked.
    """

    metric: ClassificationMetric | RegressionMetric | MultilabelMetric | None = Field(
        default=None,
        description="unset: accuracy, spearman for regression, micro_f1 for multilabel",
    )
    positive_label: str | None = Field(
        default=None, description="positive label of the metric f1; unset: the last label"
    )
    split: Literal["dev", "test"] = "dev"
    min_value: Fraction | None = None
    max_drop: Fraction | None = Field(default=None, description="teacher minus student")
    min_retention: Annotated[float, Field(gt=0.0)] | None = Field(
        default=None, description="student / teacher"
    )
    min_gain: float | None = Field(
        default=None,
        description="student minus the student without distillation (distill.baseline)",
    )
    min_class_recall: Fraction | None = Field(default=None, description="recall of the worst class")
    max_quantization_drop: Fraction = Field(
        default=0.01, description="student in torch minus shipped form"
    )
    min_agreement: Fraction | None = Field(
        default=None,
        description="share of the split's rows on which the shipped form and fp32 agree",
    )
    max_unknown: Fraction | None = Field(
        default=None,
        description="share of [UNK] among the split's tokens, where export trims the vocabulary",
    )
    predecessor: str | None = Field(default=None, description="folder of the bundle to be replaced")
    not_worse_than_predecessor: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        default=None,
        description="significance level, such as 0.05: fails if a model as good as the predecessor "
        "would score this low on the split with a smaller probability",
    )
    max_size_bytes: PositiveInt | None = Field(default=None, description="of the shipped ONNX file")
    max_latency_ms: PositiveFloat | None = Field(
        default=None, description="p50 of the shipped form at the shape of section [target]"
    )

    @model_validator(mode="after")
    def predecessor_is_judged(self) -> GateSettings:
        """Check that a predecessor and its significance level are given together."""
        if (self.predecessor is None) != (self.not_worse_than_predecessor is None):
            raise ValueError(
                "predecessor and not_worse_than_predecessor belong together: the folder of a "
                "bundle, and a significance level such as 0.05"
            )
        return self


class EvaluateSettings(Section):
    """How outputs become labels, in evaluation and in the served bundle."""

    thresholds: Literal["tuned"] | Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default="tuned",
        description="multilabel: minimum probability of a label; tuned: one per label, best on "
        "dev for the gate's metric; a number: the same for every label",
    )
