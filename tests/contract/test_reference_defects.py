"""The known defects of the TinyBERT reference code, and what keeps each out of this one.

The defects are those of the research code's four training and augmentation scripts, numbered in
the order of that review. Every one is answered by tests that would fail with it, or by the reason
why it has no place here.
"""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_line import line_recipe
from tiny_models import (
    MAX_LENGTH,
    open_tiny,
    save_tiny,
    tiny_bert,
    tiny_classifier,
    tiny_dataset,
    tiny_split,
)

from factory.data.corpus.shards import open_rows
from factory.data.corpus.tokenize import make_corpus
from factory.data.dataset import Dataset
from factory.distill import baseline, prediction, task
from factory.distill.general import general_distill, load_base_teacher
from factory.evaluation.evaluate import evaluate
from factory.models.classifier import TorchClassifier
from factory.models.source import ModelSource
from factory.recipe.training import (
    DistillSettings,
    IntermediateSettings,
    PredictionSettings,
    StudentSettings,
    TeacherSettings,
)
from factory.teacher.load import make_teacher

ROOT = Path(__file__).parents[2]
CORRECTED = "tests/augment/test_augment_contextual.py"
STAGE = "tests/augment/test_augment_run.py"
WORDS = "tests/augment/test_augment_words.py"
MASKED = "tests/augment/test_augment_masked_lm.py"


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect.

    Args:
        tests: node ids of tests that would fail with it.
        absent: why it cannot occur here; given exactly when there are no tests.
    """

    number: int
    what: str
    tests: tuple[str, ...] = ()
    absent: str = ""


HERE = "tests/contract/test_reference_defects.py"
CORPUS = "tests/data/corpus/test_corpus_shards.py"
GENERAL = "tests/distill/test_general.py"
PHASE = "tests/distill/test_phase.py"
TASK = "tests/distill/test_task.py"
LOSSES = "tests/distill/test_losses.py"
TEACHING = "tests/distill/test_teaching.py"
TEACHER = "tests/test_teacher.py"

DEFECTS = (
    Defect(
        1,
        "settings written under a misspelt name are never read",
        (
            "tests/recipe/test_recipe_file.py::test_an_unknown_key_names_the_nearest_known_one",
            "tests/recipe/test_recipe.py::test_a_misspelt_attribute_cannot_be_added",
            "tests/distill/test_baseline.py::test_the_recipe_decides_both_phases",
        ),
    ),
    Defect(
        2,
        "the teacher teaches with its dropout on",
        (
            f"{TEACHING}::test_the_teachers_dropout_is_off_while_it_teaches",
            "tests/distill/test_derive.py::test_the_teachers_dropout_does_not_enter",
        ),
    ),
    Defect(
        3,
        "the soft loss is divided by the number of classes and ignores the temperature's square",
        (
            f"{LOSSES}::test_prediction_loss_at_chance_is_the_logarithm_of_the_classes",
            f"{LOSSES}::test_the_square_keeps_the_gradient_when_the_temperature_is_high",
        ),
    ),
    Defect(
        4,
        "padding takes part in the attention and hidden losses",
        (
            f"{LOSSES}::test_more_padding_changes_nothing",
            f"{LOSSES}::test_padding_gets_no_gradient_and_real_tokens_do",
            "tests/distill/test_intermediate_terms.py::test_the_maximum_length_does_not_change_the_terms",
        ),
    ),
    Defect(
        5,
        "after one save, selection goes on with another dev set",
        (
            f"{HERE}::test_scoring_one_split_leaves_the_next_alone",
            "tests/test_gate.py::test_gate_1_measures_on_the_gates_split",
        ),
    ),
    Defect(
        6,
        "the teacher's classes stand in another order than the data's",
        (
            f"{TEACHER}::test_an_adopted_teacher_answers_in_the_datas_order",
            f"{TEACHER}::test_labels_that_do_not_match_are_refused",
            f"{TEACHER}::test_a_good_teacher_passes_a_random_and_a_permuted_one_do_not",
        ),
    ),
    Defect(
        7,
        "in regression the student learns annotations, not the teacher",
        (f"{TEACHING}::test_regression_learns_the_teachers_outputs",),
    ),
    Defect(
        8,
        "a pair's second text meets a wrong first one",
        (
            f"{CORRECTED}::test_sides_of_a_pair_stay_with_their_own_partner",
            "tests/augment/test_augment_algorithm_1.py::test_pairs_keep_their_partner",
        ),
    ),
    Defect(
        9,
        "a table written with quotation marks is read as if it had none",
        (
            "tests/data/test_data_problems.py::test_the_tsv_trap_written_with_quoting_read_without",
            "tests/data/test_data_reading.py::test_any_text_comes_back",
            "tests/data/test_data_dataset.py::test_every_text_survives",
        ),
    ),
    Defect(
        10,
        "the word to replace is shown and proposed again",
        (
            f"{CORRECTED}::test_the_answer_is_nowhere_in_what_the_model_reads",
            f"{CORRECTED}::test_candidates_case_spacing_and_marks",
        ),
    ),
    Defect(
        11,
        "incomplete batches are left out, so small data trains nothing",
        (
            f"{PHASE}::test_every_epoch_sees_every_row_once_in_a_new_order",
            f"{PHASE}::test_fewer_rows_than_a_batch_are_trained_on",
            "tests/test_encoding.py::test_an_epoch_holds_every_row_once",
            "tests/data/test_data_source.py::test_fewer_rows_than_a_batch",
        ),
    ),
    Defect(
        12,
        "only every so many steps are saved, and never the end",
        (
            f"{TASK}::test_the_shortest_run_leaves_a_student",
            f"{HERE}::test_the_student_is_the_one_after_the_last_step",
        ),
    ),
    Defect(
        13,
        "the student is picked by the dev score that is then reported",
        (
            f"{HERE}::test_the_student_is_the_one_after_the_last_step",
            f"{HERE}::test_training_is_given_no_rows_to_select_on",
        ),
    ),
    Defect(
        14,
        "with accumulated gradients one step is evaluated several times",
        absent="gradients are not accumulated, and nothing is evaluated while training",
    ),
    Defect(
        15,
        "an interrupted run cannot go on",
        (
            f"{PHASE}::test_an_interrupted_run_ends_with_the_same_weights_to_the_last_bit",
            f"{TASK}::test_an_interrupted_run_ends_with_the_same_weights",
            "tests/test_teacher_training.py::test_a_killed_run_is_continued_from_its_last_epoch",
            "tests/test_store.py::test_a_resumed_stage_finds_what_it_left",
        ),
    ),
    Defect(
        16,
        "full precision only, and several devices in one process only",
        absent="bfloat16 is used on CUDA, which these tests do not have; "
        "training on several devices is not offered",
    ),
    Defect(
        17,
        "all rows are held padded, as wide integers, from a slow tokenizer",
        (
            "tests/test_encoding.py::test_rows_are_kept_unpadded_in_four_bytes_a_token",
            f"{TASK}::test_the_student_is_a_plain_bert_folder",
        ),
    ),
    Defect(
        18,
        "every batch is padded to the longest length allowed",
        (
            f"{PHASE}::test_batches_are_padded_to_their_own_longest_row",
            "tests/test_encoding.py::test_grouping_by_length_saves_most_padding",
        ),
    ),
    Defect(
        19,
        "the prediction phase computes projections and scores nobody uses",
        (f"{TEACHING}::test_the_prediction_phase_runs_the_bare_student",),
    ),
    Defect(
        20,
        "some of the built-in tasks crash, and malformed rows vanish",
        (
            "tests/data/test_data_problems.py::test_a_csv_problem_is_told_with_its_line",
            "tests/data/test_data_problems.py::test_all_problems_come_together_and_long_lists_are_counted",
            "tests/data/test_data_reading.py::test_pairs",
        ),
    ),
    Defect(
        21,
        "one forward pass for every word",
        (
            f"{CORRECTED}::test_a_share_of_the_words_is_hidden_in_one_pass",
            f"{CORRECTED}::test_repeated_words_are_looked_up_once",
            f"{MASKED}::test_the_decoder_sees_hidden_places_only",
        ),
    ),
    Defect(
        22,
        "augmentation without seed and without resume",
        (f"{STAGE}::test_killed_shared_or_in_other_batches_the_bytes_are_the_same",),
    ),
    Defect(
        23,
        "augmentation crashes on empty and on long texts",
        (
            f"{WORDS}::test_any_text_is_its_words_and_what_stands_between",
            f"{CORRECTED}::test_a_word_beyond_what_the_model_reads_goes_to_the_next_source",
            f"{CORRECTED}::test_no_word_to_replace",
        ),
    ),
    Defect(
        24,
        "word vectors with blanks or few rows break loading",
        (
            "tests/augment/test_augment_word_vectors.py::test_tokens_that_are_no_words_are_left_out",
            "tests/augment/test_augment_neighbours.py::test_fewer_words_than_asked_for_and_unknown_ones",
        ),
    ),
    Defect(25, "augmentation knows English only", (f"{WORDS}::test_words_marks_and_scripts",)),
    Defect(
        26,
        "several processes never share the student's gradients",
        ("tests/distill/test_shared_training.py::test_two_processes_distil_as_one_does",),
    ),
    Defect(
        27,
        "a cache folder at a fixed place",
        (f"{HERE}::test_general_distillation_writes_only_below_its_directories",),
    ),
    Defect(
        28,
        "masking although none was asked for, and a slow store",
        (f"{CORPUS}::test_the_stage_packs_what_the_tokenizer_makes",),
    ),
    Defect(
        29,
        "continuing reloads weights and nothing else",
        (
            f"{GENERAL}::test_interrupted_within_an_epoch_it_ends_with_the_same_bytes",
            f"{CORPUS}::test_interrupted_anywhere_the_files_are_the_same_bytes",
        ),
    ),
    Defect(
        30,
        "logs in the working folder, any version of every library",
        (
            f"{HERE}::test_training_writes_only_below_its_directory",
            f"{HERE}::test_every_requirement_has_both_bounds",
        ),
    ),
)


def test_the_table_is_complete() -> None:
    assert [defect.number for defect in DEFECTS] == list(range(1, 31))
    for defect in DEFECTS:
        assert bool(defect.tests) != bool(defect.absent), defect.number


def functions_of(file: Path) -> dict[str, list[str]]:
    """Names of the functions of a module, each with its decorators as source."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {
        node.name: [ast.unparse(decorator) for decorator in node.decorator_list]
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize(
    "node_id", sorted({node_id for defect in DEFECTS for node_id in defect.tests})
)
def test_a_named_test_exists_and_runs_by_default(node_id: str) -> None:
    file, _, name = node_id.partition("::")
    assert (ROOT / file).is_file(), file
    functions = functions_of(ROOT / file)
    assert name in functions
    assert name.startswith("test_")
    assert not re.search(r"mark\.(skip|xfail|slow|gpu|network)", " ".join(functions[name]))


# defects that have no natural test elsewhere

STUDENT = StudentSettings(layers=1, hidden=16, heads=4, intermediate=32, start="random")
SETTINGS = DistillSettings(
    batch_size=16,
    intermediate=IntermediateSettings(epochs=1),
    prediction=PredictionSettings(epochs=1, learning_rate=1e-2),
)


def test_scoring_one_split_leaves_the_next_alone(teacher: TorchClassifier) -> None:
    """Scores depend on the split, not on which splits were scored before."""
    dev, test = tiny_split("dev", 30, seed=1), tiny_split("test", 45, seed=2)
    labels = tuple(teacher.model.config.id2label.values())
    first = evaluate(teacher, dev, labels)
    other = evaluate(teacher, test, labels)
    again = evaluate(teacher, dev, labels)
    assert (first.split, first.rows, other.split, other.rows) == ("dev", 30, "test", 45)
    assert first.to_facts() == again.to_facts()
    assert np.array_equal(first.predicted, again.predicted)
    expected = teacher.logits(dev.texts).argmax(axis=1) == np.array(dev.targets)
    assert first.scores["accuracy"].value == expected.mean()


def test_the_student_is_the_one_after_the_last_step(
    tmp_path: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    final: dict[str, torch.Tensor] = {}
    original = prediction.train_phase

    def remember(phase: Any, modules: Any, *rest: Any, **named: Any) -> Any:
        points = original(phase, modules, *rest, **named)
        assert points[-1].step == 4
        final["pooler"] = modules["student"].bert.pooler.dense.weight.clone()
        final["classifier"] = modules["student"].classifier.weight.clone()
        return points

    monkeypatch.setattr(prediction, "train_phase", remember)
    train = tiny_dataset(60, 3).train
    task.distill(tmp_path, teacher, train, STUDENT, None, SETTINGS)
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert torch.equal(saved["bert.pooler.dense.weight"], final["pooler"])
    assert torch.equal(saved["classifier.weight"], final["classifier"])


@pytest.mark.parametrize("stage", [task.distill, baseline.train_baseline])
def test_training_is_given_no_rows_to_select_on(stage: Any) -> None:
    """One split comes in, and it is the training split."""
    given = inspect.signature(stage).parameters.values()
    from_data = [p.name for p in given if "Split" in str(p.annotation) or "Dataset" in str(p)]
    assert from_data == ["train"]


def files_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_training_writes_only_below_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data: Dataset = tiny_dataset(60, 30)
    base = save_tiny(tiny_bert(), tmp_path / "base")
    for name in ("working", "home", "made", "student", "baseline", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "working")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    before = files_below(base)
    source = ModelSource(str(base), None, "test")
    settings = TeacherSettings(model="base", epochs=1.0)
    make_teacher(tmp_path / "made", source, settings, data, MAX_LENGTH, "cpu")
    teacher = open_tiny(tmp_path / "made" / "model")
    task.distill(tmp_path / "student", teacher, data.train, STUDENT, None, SETTINGS)
    baseline.train_baseline(tmp_path / "baseline", teacher, data.train, STUDENT, None, SETTINGS)
    assert files_below(base) == before
    for name in ("working", "home", "temporary"):
        assert files_below(tmp_path / name) == set(), name
    top = {path.name for path in tmp_path.iterdir()}
    assert top == {"base", "working", "home", "made", "student", "baseline", "temporary"}


def test_general_distillation_writes_only_below_its_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_tiny(tiny_bert(), tmp_path / "base")
    texts = "\n".join(tiny_dataset(60, 30).train.texts)
    (tmp_path / "corpus.txt").write_text(texts, encoding="utf-8")
    for name in ("working", "home", "packed", "general", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "working")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    before = files_below(base)
    source = ModelSource(str(base), None, "test")
    recipe = line_recipe({"general.corpus": "corpus.txt", "general.max_length": MAX_LENGTH})
    assert recipe.general is not None
    make_corpus(tmp_path / "packed", recipe.general, source, tmp_path)
    teacher = load_base_teacher(source, recipe.general, "cpu")
    general_distill(tmp_path / "general", teacher, open_rows(tmp_path / "packed"), recipe)
    assert files_below(base) == before
    for name in ("working", "home", "temporary"):
        assert files_below(tmp_path / name) == set(), name
    top = {path.name for path in tmp_path.iterdir()}
    assert top == {
        "base", "corpus.txt", "working", "home", "packed", "general", "temporary",
    }  # fmt: skip


def test_every_requirement_has_both_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    requirements = [*project["dependencies"], *(line for extra in extras for line in extra)]
    assert len(requirements) > 10
    for line in requirements:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+(\[[a-z]+\])?>=[0-9.]+,<[0-9.]+(; .+)?", line), line


def test_a_random_teacher_is_not_a_trained_one(teacher: TorchClassifier) -> None:
    """Guards the tests above: their teacher knows the data, a random model does not."""
    dev = tiny_split("dev", 30, seed=1)
    labels = tuple(teacher.model.config.id2label.values())
    assert evaluate(teacher, dev, labels).scores["accuracy"].value > 0.9
    random = tiny_classifier(tiny_bert())
    assert evaluate(random, dev, labels).scores["accuracy"].value < 0.6
