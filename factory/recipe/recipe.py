"""The recipe: every setting that changes an artifact's bytes, as one frozen tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from factory.evaluation.gate import recipe_problem
from factory.recipe.augment import AugmentSettings as AugmentSettings
from factory.recipe.augment import MlmSettings as MlmSettings
from factory.recipe.card import CardSettings as CardSettings
from factory.recipe.data import DataSettings as DataSettings
from factory.recipe.export import ExportSettings as ExportSettings
from factory.recipe.export import QuantizeSettings as QuantizeSettings
from factory.recipe.export import ReportSettings as ReportSettings
from factory.recipe.export import TargetSettings as TargetSettings
from factory.recipe.gate import TASK_METRICS as TASK_METRICS
from factory.recipe.gate import GateSettings as GateSettings
from factory.recipe.prune import Pruning
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
    """The large model, and how it is fine-tuned when it is not yet."""

    model: str = Field(description="hub id, local folder, or package:NAME for an installed package")
    revision: str | None = Field(default=None, description="revision of a hub id")
    fine_tune: bool = Field(default=True, description="false adopts a model already fine-tuned")
    labels: Annotated[list[str], Field(min_length=2)] | None = Field(
        default=None, description="names of an adopted teacher's outputs, when its config has none"
    )
    epochs: PositiveFloat = 3.0
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 5e-5
    warmup: Fraction = Field(default=0.1, description="share of the steps")
    weight_decay: NonNegativeFloat = 0.01
    seed: int = 42
    class_weights: Literal["none", "balanced"] = Field(
        default="none",
        description='"balanced" weighs each training row by rows / (classes * rows of its class)',
    )
    min_margin: Fraction = Field(
        default=0.05,
        description="how far above chance it must be on dev before anyone learns from it: mean "
        "recall above that of guessing, less any accuracy below the majority class's "
        "(multilabel: micro F1 above the best fixed set of labels; regression: Spearman above 0)",
    )


class StudentSettings(Section):
    """The small model's shape and where its first weights come from."""

    shape: Literal["4x312", "6x256", "3x384", "2x128"] | None = Field(
        default=None,
        exclude=True,  # the four numbers it stands for say all of it
        description="layers x hidden of a shape whose layers, hidden, heads and intermediate are "
        "then known; those given beside it count more",
    )
    layers: PositiveInt = 4
    hidden: PositiveInt = 312
    heads: PositiveInt = 12
    intermediate: PositiveInt = 1200
    dropout: Fraction = Field(
        default=0.0, description="while training; the paper's student has 0.1"
    )
    start: str = Field(
        default="teacher",
        description='"teacher", "random", "general", or a checkpoint: hub id, folder, bundle',
    )
    revision: str | None = Field(default=None, description="revision of a hub checkpoint")

    @model_validator(mode="before")
    @classmethod
    def fill_shape(cls, given: Any) -> Any:
        """The numbers of the shape named, below those given one by one."""
        shape = given.get("shape") if isinstance(given, Mapping) else None
        return {**STUDENT_SHAPES.get(shape, {}), **given} if isinstance(shape, str) else given

    @model_validator(mode="after")
    def heads_divide(self) -> StudentSettings:
        """Every head has the same width."""
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of heads {self.heads}")
        return self


class IntermediateSettings(Section):
    """First phase: embeddings, hidden states and attention scores (TinyBERT, eq. 7-9)."""

    epochs: NonNegativeFloat = 3.0
    batch_size: PositiveInt | None = Field(default=None, description="unset: distill.batch_size")
    learning_rate: PositiveFloat = Field(
        default=2e-4, description="for the derived start; random weights want 6e-4"
    )
    warmup: Fraction = Field(default=0.1, description="share of the steps")
    embedding_weight: NonNegativeFloat = 1.0
    hidden_weight: NonNegativeFloat = 1.0
    attention_weight: NonNegativeFloat = 1.0
    attention: Literal["auto", "scores", "relations"] = Field(
        default="auto",
        description="what is compared: scores head by head, which needs equal head counts, or "
        "relations of queries, keys and values (MiniLMv2); auto: scores where head counts agree",
    )
    relation_heads: PositiveInt | None = Field(
        default=None,
        description="how many heads the relations are split into; must divide both widths; unset: "
        "student.heads, or the largest number up to 48 that does",
    )
    layer_weights: Annotated[list[NonNegativeFloat], Field(min_length=2)] | None = Field(
        default=None, description="lambda of the embedding output and of each student layer"
    )
    head_reduction: Literal["mean", "sum"] = Field(
        default="mean", description="of the attention loss over heads; the paper takes the mean"
    )


class PredictionSettings(Section):
    """Second phase: the teacher's logits (TinyBERT, eq. 10)."""

    epochs: NonNegativeFloat = 3.0
    batch_size: PositiveInt | None = Field(default=None, description="unset: distill.batch_size")
    learning_rate: PositiveFloat = 3e-5
    warmup: Fraction = Field(default=0.1, description="share of the steps")
    temperature: PositiveFloat = Field(
        default=1.0, description="divides both sets of logits; the loss is scaled by its square"
    )


class DistillSettings(Section):
    """How the student learns from the teacher."""

    seed: int = 42
    batch_size: PositiveInt = 32
    weight_decay: NonNegativeFloat = 0.01
    layer_map: Literal["uniform", "top", "bottom"] | list[PositiveInt] = "uniform"
    unlabelled_phases: Literal["both", "prediction"] = Field(
        default="both", description="which phases learn on the unlabelled rows"
    )
    holdout_fraction: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        default=0.0,
        description="share of train that no student learns on; the epoch of the prediction phase "
        "and the seed that come closest to the teacher there are kept",
    )
    seeds: PositiveInt = Field(
        default=1, description="students trained, with seed, seed + 1, ...; the best one is kept"
    )
    baseline: Literal["off", "random", "same"] = Field(
        default="off",
        description="also train the same student on the hard labels alone, for equal steps, from "
        "random weights or from the student's own start",
    )
    baseline_learning_rate: PositiveFloat | None = Field(
        default=None,
        description="unset: 6e-4 from random weights, 1e-4 from the student's own start",
    )
    intermediate: IntermediateSettings = IntermediateSettings()
    prediction: PredictionSettings = PredictionSettings()


class EvaluateSettings(Section):
    """How outputs become answers when the models are scored, and later when the bundle serves."""

    thresholds: Literal["tuned"] | Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default="tuned",
        description="multilabel: probability from which a label applies; tuned: one per label, "
        "best on dev for the gate's metric, or one number for every label",
    )


class GeneralSettings(IntermediateSettings):
    """General distillation: the losses of the first phase, from a base teacher over raw text."""

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
        default=None, description="tokens to take from the corpus's beginning; unset: all"
    )
    max_length: Annotated[int, Field(ge=8, le=512)] = Field(
        default=128, description="tokens per row"
    )
    start: Literal["teacher", "random"] = Field(
        default="teacher", description="where the general student's own weights start"
    )
    epochs: PositiveFloat = 1.0
    batch_size: PositiveInt = 32
    weight_decay: NonNegativeFloat = 0.01
    seed: int = 42

    @property
    def corpus_names(self) -> tuple[str, ...]:
        """The corpus files in order; none for a hub data set."""
        if self.corpus is None:
            return ()
        return (self.corpus,) if isinstance(self.corpus, str) else tuple(self.corpus)

    @model_validator(mode="after")
    def one_corpus(self) -> GeneralSettings:
        """Exactly one source of raw text."""
        if (self.corpus is None) == (self.hub is None):
            raise ValueError("give either corpus (files) or hub (a data set name)")
        if self.hub is None and (self.config is not None or self.revision is not None):
            raise ValueError("config and revision belong to a hub data set")
        return self


class Recipe(Section):
    """Everything that decides what a run makes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    data: DataSettings
    teacher: TeacherSettings
    mlm: MlmSettings = MlmSettings()
    augment: AugmentSettings | None = Field(default=None, description="left out: no augmentation")
    student: StudentSettings = StudentSettings()
    distill: DistillSettings = DistillSettings()
    prune: Pruning = Field(default=None, description="left out: nothing is pruned")
    evaluate: EvaluateSettings = EvaluateSettings()
    general: GeneralSettings | None = Field(default=None, description='for start = "general"')
    gate: GateSettings = GateSettings()
    export: ExportSettings = ExportSettings()
    quantize: QuantizeSettings = QuantizeSettings()
    target: TargetSettings = TargetSettings()
    card: CardSettings = CardSettings()
    report: ReportSettings = ReportSettings()

    @property
    def metric(self) -> str:
        """The gate's metric, or the task's usual one."""
        if self.gate.metric is not None:
            return self.gate.metric
        return TASK_METRICS[self.data.task][0]

    @property
    def tuning_goal(self) -> Literal["micro_f1", "macro_f1"]:
        """What multilabel thresholds are tuned for: the gate's metric, or what comes nearest."""
        return "macro_f1" if self.metric == "macro_f1" else "micro_f1"

    @model_validator(mode="after")
    def consistent(self) -> Recipe:
        """Settings that only make sense together."""
        gate = self.gate
        if (problem := recipe_problem(self)) is not None:
            raise ValueError(problem)
        metrics = TASK_METRICS[self.data.task]
        if self.metric not in metrics:
            raise ValueError(
                f"gate.metric {self.metric} does not fit data.task {self.data.task}, "
                f"which has {', '.join(metrics)}"
            )
        if self.evaluate.thresholds != "tuned" and self.data.task != "multilabel":
            raise ValueError('evaluate.thresholds needs data.task = "multilabel"')
        if gate.positive_label is not None and self.data.task != "classification":
            raise ValueError("gate.positive_label needs data.task = classification")
        if self.teacher.class_weights != "none" and self.data.task != "classification":
            raise ValueError("teacher.class_weights needs data.task = classification")
        if self.teacher.class_weights != "none" and not self.teacher.fine_tune:
            raise ValueError("teacher.class_weights needs teacher.fine_tune = true")
        if self.student.start == "general" and self.general is None:
            raise ValueError(
                'student.start = "general" needs the section [general] with a corpus; '
                "or name the folder of a general student"
            )
        test = self.data.test if self.data.hub is None else self.data.test_split
        if gate.split == "test" and test is None:
            raise ValueError('gate.split = "test" needs data.test, or data.test_split of a hub set')
        if self.distill.seeds > 1 and self.distill.holdout_fraction == 0:
            raise ValueError(
                "distill.seeds above 1 needs distill.holdout_fraction, the rows to choose on "
                "(0.1, say): dev only reports"
            )
        return self

    @model_validator(mode="after")
    def layers_fit(self) -> Recipe:
        """Settings with one value for each of the student's layers."""
        phases = {"distill.intermediate": self.distill.intermediate, "general": self.general}
        for name, phase in phases.items():
            layer_weights = None if phase is None else phase.layer_weights
            if layer_weights is not None and len(layer_weights) != self.student.layers + 1:
                raise ValueError(
                    f"{name}.layer_weights has {len(layer_weights)} entries for the "
                    f"embedding output and {self.student.layers} layers"
                )
            if phase is not None and (
                problem := _relation_heads_problem(name, phase, self.student.hidden)
            ):
                raise ValueError(problem)
        layer_map = self.distill.layer_map
        if isinstance(layer_map, list) and len(layer_map) != self.student.layers:
            raise ValueError(
                f"distill.layer_map has {len(layer_map)} entries for {self.student.layers} layers"
            )
        return self


def _relation_heads_problem(section: str, settings: IntermediateSettings, width: int) -> str | None:
    """Why the relation heads cannot be; the teacher's width is checked when it is known."""
    heads = settings.relation_heads
    if heads is None:
        return None
    if settings.attention == "scores":
        return f'{section}.relation_heads belongs to {section}.attention = "relations" or "auto"'
    if width % heads:
        return f"{section}.relation_heads {heads} does not divide student.hidden {width}"
    return None
