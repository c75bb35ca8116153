"""The stages from a recipe to a bundle, one module each, in the order they run."""

from __future__ import annotations

from factory.stages import (
    augment,
    baseline,
    bundle,
    corpus,
    data,
    distill,
    evaluate,
    export,
    general,
    prune,
    quantize,
    teacher,
    trim,
    unlabelled,
)
from factory.stages.stage import Stage

STAGES: tuple[Stage, ...] = (
    data.STAGE,
    unlabelled.STAGE,
    teacher.STAGE,
    augment.STAGE,
    corpus.STAGE,
    general.STAGE,
    distill.STAGE,
    prune.STAGE,
    baseline.STAGE,
    evaluate.STAGE,
    trim.STAGE,
    export.STAGE,
    quantize.STAGE,
    bundle.STAGE,
)
