"""What each stage does once the pipeline has decided to run it; heavy imports happen inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory.building import Facts
from factory.data.dataset import Dataset, Split, write_dataset
from factory.data.load import load_dataset
from factory.data.unlabelled import load_unlabelled, read_unlabelled, write_unlabelled
from factory.graph import Graph
from factory.models.source import ModelSource
from factory.recipe.export import VariantName
from factory.recipe.recipe import Recipe
from factory.runtime.progress import say
from factory.store import Artifact

if TYPE_CHECKING:
    from factory.augment.tools import AugmentTools
    from factory.distill.transfer import AugmentedRows, Inputs


def make_data(here: Path, recipe: Recipe, base_directory: Path) -> Facts:
    """Read the recipe's data into splits."""
    from factory.runtime.scratch import scratch_directory

    with scratch_directory(here) as scratch:
        dataset, facts = load_dataset(recipe.data, base_directory, scratch, say)
    write_dataset(dataset, here)
    return facts


def make_unlabelled(here: Path, recipe: Recipe, base_directory: Path, dataset: Dataset) -> Facts:
    """Read the text without labels."""
    from factory.runtime.scratch import scratch_directory

    with scratch_directory(here) as scratch:
        rows, facts = load_unlabelled(recipe.data, base_directory, scratch, dataset, say)
    write_unlabelled(rows, here)
    return facts


def make_teacher(here: Path, recipe: Recipe, graph: Graph, dataset: Dataset, device: str) -> Facts:
    """Fine-tune or adopt the teacher."""
    from factory.models.classifier import pick_device
    from factory.teacher.load import make_teacher

    return make_teacher(
        here,
        graph.teacher_source,
        recipe.teacher,
        dataset,
        recipe.data.max_length,
        pick_device(device),
        only_bert=recipe.student.start in ("teacher", "random"),
    )


def make_corpus(here: Path, recipe: Recipe, teacher: ModelSource, base_directory: Path) -> Facts:
    """Tokenize the raw corpus of general distillation."""
    from factory.data.corpus.tokenize import make_corpus

    assert recipe.general is not None, "checked by the recipe"
    return make_corpus(here, recipe.general, teacher, base_directory)


def general(
    here: Path, recipe: Recipe, source: ModelSource, corpus: Artifact, device: str
) -> Facts:
    """Distil the base teacher over the corpus."""
    from factory.data.corpus.rows import open_rows
    from factory.distill.general import general_distill, load_base_teacher
    from factory.models.classifier import pick_device

    assert recipe.general is not None, "checked by the recipe"
    teacher = load_base_teacher(source, recipe.general, pick_device(device))
    return general_distill(here, teacher, open_rows(corpus.directory), recipe)


def train_mlm(
    here: Path,
    recipe: Recipe,
    source: ModelSource,
    dataset: Dataset,
    unlabelled: Artifact | None,
    device: str,
) -> Facts:
    """Train a masked language model on the recipe's own text, never on dev or test."""
    from factory.augment.mlm_training import train_mlm
    from factory.models.classifier import pick_device

    more = () if unlabelled is None else read_unlabelled(unlabelled.directory)
    inputs = [*dataset.train.inputs(), *more]
    texts = [text for one in inputs for text in ((one,) if isinstance(one, str) else one)]
    length = recipe.data.max_length
    return train_mlm(here, source, recipe.mlm, texts, length, pick_device(device))


def open_tools(
    recipe: Recipe, graph: Graph, mlm: Artifact | None, teacher: Artifact | None, device: str
) -> AugmentTools:
    """What augmentation works with: who proposes words, and who judges variants."""
    from factory.augment.tools import open_tools
    from factory.models.classifier import pick_device

    settings, steps = recipe.augment, graph.augmentation
    assert settings is not None, "the step was made from it"
    assert steps is not None, "made with it"
    judge = None
    if settings.filter == "teacher":
        assert teacher is not None, "its step is an input"
        judge = open_model(teacher, recipe, device)
    folder = None if mlm is None else mlm.directory / "model"
    return open_tools(
        recipe, steps.sources, graph.teacher_source, folder, judge, pick_device(device)
    )


def augment(here: Path, recipe: Recipe, dataset: Dataset, tools: AugmentTools) -> Facts:
    """Variants of the training rows; see `factory.augment.stage.augment`."""
    from factory.augment.stage import augment

    assert recipe.augment is not None, "the step was made from it"
    return augment(here, dataset.train, recipe.augment, tools)


def read_augmented(augmented: Artifact) -> AugmentedRows:
    """The variants that `augment` wrote."""
    from factory.augment.stage import read_augmented
    from factory.distill.transfer import AugmentedRows

    inputs, source_rows = read_augmented(augmented.directory)
    return AugmentedRows(inputs, source_rows)


def check_teacher(teacher: Artifact, dataset: Dataset, recipe: Recipe) -> None:
    """Refuse a teacher that is not better than none."""
    from factory.teacher.load import check_teacher

    check_teacher(teacher.facts, dataset, recipe.teacher.min_margin)


def open_model(artifact: Artifact, recipe: Recipe, device: str) -> Any:
    """Open the model of an artifact as a classifier."""
    from factory.models.classifier import load_torch_classifier, pick_device

    directory = artifact.directory / "model"
    return load_torch_classifier(directory, recipe.data.max_length, pick_device(device))


def distill(here: Path, *arguments: Any) -> Facts:
    """Both phases of task distillation; see `factory.distill.task.distill`."""
    from factory.distill.task import distill

    return distill(here, *arguments)


def prune(
    here: Path,
    distilled: Artifact,
    teacher: Artifact,
    recipe: Recipe,
    train: Split,
    augmented: AugmentedRows | None,
    unlabelled: Inputs | None,
    device: str,
) -> Facts:
    """The distilled student with fewer neurons; see `factory.distill.prune.prune`."""
    from factory.distill.prune import prune

    assert recipe.prune is not None, "the step was made from it"
    return prune(
        here,
        distilled.directory,
        open_model(distilled, recipe, device),
        open_model(teacher, recipe, device),
        train,
        recipe.prune,
        recipe.distill,
        augmented,
        unlabelled,
    )


def train_with_rounding(
    here: Path,
    distilled: Artifact,
    teacher: Artifact,
    recipe: Recipe,
    train: Split,
    augmented: AugmentedRows | None,
    unlabelled: Inputs | None,
    device: str,
) -> Facts:
    """The student trained as its integer form computes; see `factory.distill.rounding`."""
    from factory.distill.rounding import train_with_rounding

    return train_with_rounding(
        here,
        distilled.directory,
        open_model(distilled, recipe, device),
        open_model(teacher, recipe, device),
        train,
        recipe,
        augmented,
        unlabelled,
    )


def baseline(here: Path, *arguments: Any) -> Facts:
    """The undistilled student; see `factory.distill.baseline.train_baseline`."""
    from factory.distill.baseline import train_baseline

    return train_baseline(here, *arguments)


def evaluate(
    here: Path, models: Mapping[str, Artifact], recipe: Recipe, dataset: Dataset, device: str
) -> Facts:
    """Score every torch model on dev, and on test when there is one."""
    import numpy as np

    from factory.evaluation.evaluate import evaluate_splits

    facts: Facts = {}
    for name, artifact in models.items():
        model = open_model(artifact, recipe, device)
        results = evaluate_splits(
            model,
            dataset.splits()[1:],
            dataset.labels,
            recipe.evaluate.thresholds,
            recipe.gate.positive_label,
            recipe.tuning_goal,
        )
        for split, result in results.items():
            np.save(here / f"{name}.{split}.npy", result.predicted)
            np.save(here / f"{name}.{split}.logits.npy", result.logits)
        facts[name] = {split: result.facts() for split, result in results.items()}
    return facts


def check_student(evaluation: Artifact, dataset: Dataset) -> None:
    """Refuse a student that answers as if it knew nothing."""
    from factory.evaluation.chance import check_student

    check_student(evaluation.facts["student"]["dev"], dataset)


def trim(here: Path, student: Artifact, recipe: Recipe, dataset: Dataset, others: Inputs) -> Facts:
    """A copy of the student that knows fewer word pieces, and how it reads dev and test."""
    import shutil

    from factory.export.trim import (
        choose_pieces,
        measure_trim,
        needed_pieces,
        trim_student,
    )

    source, target = student.directory / "model", here / "model"
    shutil.rmtree(target, ignore_errors=True)  # what an interrupted run left
    rows = [*dataset.train.inputs(), *others]
    texts = (text for row in rows for text in ((row,) if isinstance(row, str) else row))
    assert recipe.export.general_pieces is not None, "the step was made from it"
    kept = choose_pieces(source, needed_pieces(source, texts), recipe.export.general_pieces)
    facts = trim_student(source, target, kept)
    for split in dataset.splits()[1:]:
        facts[split.name] = measure_trim(source, target, split.inputs(), recipe.data.max_length)
    return facts


def export(
    here: Path, student: Artifact, evaluation: Artifact, recipe: Recipe, dataset: Dataset
) -> Facts:
    """Write the ONNX file and check it against torch."""
    from factory.evaluation.evaluate import thresholds_of
    from factory.export.onnx import export_onnx
    from factory.export.parity import check_agreement, check_parity

    file = here / "model.onnx"
    export_onnx(student.directory / "model", file, recipe.export.opset, recipe.export.first_token)
    model = open_model(student, recipe, "cpu")
    thresholds = thresholds_of(evaluation.facts, "student", dataset.labels)
    atol = recipe.export.atol
    return {
        "largest_difference": check_parity(file, model, atol),
        "dev_rows_agreeing": check_agreement(file, model, dataset.dev, thresholds, atol),
        "size_bytes": file.stat().st_size,
    }


def quantize(
    here: Path, source: Path, student: Artifact, recipe: Recipe, dataset: Dataset
) -> Facts:
    """Write every form of the fp32 file that the recipe asks for."""
    from factory.export.variants import write_variants

    hardware = recipe.target.hardware
    forms = recipe.quantize.forms(hardware)
    model = open_model(student, recipe, "cpu")
    return write_variants(here, source, forms, recipe.quantize, hardware, model, dataset.train)


def variant_files(quantized: Artifact, recipe: Recipe) -> dict[VariantName, Path]:
    """The files that `quantize` wrote."""
    forms = recipe.quantize.forms(recipe.target.hardware)
    return {name: quantized.directory / f"{name}.onnx" for name in forms}


def bundle(
    here: Path,
    graph: Graph,
    recipe: Recipe,
    dataset: Dataset,
    artifacts: Mapping[str, Artifact],
    variants: Mapping[VariantName, Path],
) -> Facts:
    """Assemble the bundle and pass it through gate 2."""
    from factory.bundle.select import ship

    made = graph.shipping.bundle.fingerprint
    return ship(here, made, recipe, dataset, artifacts, variants, graph.predecessor)
