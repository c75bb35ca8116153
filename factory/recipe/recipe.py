"""The recipe: every setting that changes an artifact's bytes, as one frozen tree."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from factory.evaluation.gate import recipe_problem
from factory.recipe.augment import AugmentSettings
from factory.recipe.data import DataSettings
from factory.recipe.export import (
    CardSettings,
    ExportSettings,
    QuantizeSettings,
    ReportSettings,
    TargetSettings,
)
from factory.recipe.gate import EvaluateSettings, GateSettings
from factory.recipe.section import Section
from factory.recipe.training import (
    DistillSettings,
    GeneralSettings,
    Pruning,
    StudentSettings,
    TeacherSettings,
)


class Recipe(Section):
    """All settings that determine the result of a run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    data: DataSettings
    teacher: TeacherSettings
    augment: AugmentSettings | None = Field(default=None, description="left out: no augmentation")
    student: StudentSettings = StudentSettings()
    distill: DistillSettings = DistillSettings()
    prune: Pruning = Field(default=None, description="left out: no pruning")
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
        """The gate's metric, or the default one of the task."""
        if self.gate.metric is not None:
            return self.gate.metric
        return self.data.traits.metrics[0]

    @property
    def tuning_goal(self) -> Literal["micro_f1", "macro_f1"]:
        """Metric that multilabel thresholds are tuned for: the gate's, or the closest one."""
        return "macro_f1" if self.metric == "macro_f1" else "micro_f1"

    @model_validator(mode="after")
    def consistent(self) -> Recipe:
        """Check settings that depend on each other."""
        gate = self.gate
        if (problem := recipe_problem(self)) is not None:
            raise ValueError(problem)
        metrics = self.data.traits.metrics
        if self.metric not in metrics:
            raise ValueError(
                f"gate.metric {self.metric} does not fit data.task {self.data.task}, "
                f"which has {', '.join(metrics)}"
            )
        if self.evaluate.thresholds != "tuned" and not self.data.traits.has_label_sets:
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
                "distill.seeds above 1 needs distill.holdout_fraction (0.1, for example): the "
                "best seed is chosen on held-out rows, not on dev"
            )
        return self

    @model_validator(mode="after")
    def layers_fit(self) -> Recipe:
        """Check settings with one value per student layer."""
        phases = {"distill.intermediate": self.distill.intermediate, "general": self.general}
        for name, phase in phases.items():
            if phase is None:
                continue
            layer_weights, heads = phase.layer_weights, phase.relation_heads
            if layer_weights is not None and len(layer_weights) != self.student.layers + 1:
                raise ValueError(
                    f"{name}.layer_weights has {len(layer_weights)} entries for the "
                    f"embedding output and {self.student.layers} layers"
                )
            if heads is None:
                continue
            if phase.attention == "scores":
                raise ValueError(
                    f'{name}.relation_heads belongs to {name}.attention = "relations" or "auto"'
                )
            if self.student.hidden % heads:  # the teacher's width is checked once it is known
                raise ValueError(
                    f"{name}.relation_heads {heads} does not divide student.hidden "
                    f"{self.student.hidden}"
                )
        layer_map = self.distill.layer_map
        if isinstance(layer_map, list) and len(layer_map) != self.student.layers:
            raise ValueError(
                f"distill.layer_map has {len(layer_map)} entries for {self.student.layers} layers"
            )
        return self
