"""The teacher: made or adopted, its labels in the data's order, and fit to teach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import (
    LABELS,
    open_tiny,
    save_tiny,
    tiny_bert,
    tiny_classifier,
    tiny_regression,
)
from helpers.tiny_teachers import SMALL, adopted, make, source_of, tuned
from transformers import AutoModelForSequenceClassification, DistilBertConfig

from factory.data.dataset import Dataset
from factory.errors import TeacherError
from factory.evaluation.metrics import Score
from factory.evaluation.results import Evaluation
from factory.teacher.fine_tune import check_teacher
from factory.teacher.load import load_pretrained, match_labels


def renamed(model: Any, names: tuple[str, ...]) -> Any:
    """The same model under other names for its outputs."""
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}
    return model


def permuted(model: Any, order: list[int]) -> Any:
    """A model whose output i is the old output order[i], with its name."""
    with torch.no_grad():
        model.classifier.weight.copy_(model.classifier.weight[order].clone())
        model.classifier.bias.copy_(model.classifier.bias[order].clone())
    return renamed(model, tuple(model.config.id2label[number] for number in order))


# adopting


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 0, 2]])
def test_an_adopted_teacher_answers_in_the_datas_order(
    tmp_path: Path, trained_folder: Path, dataset: Dataset, order: list[int]
) -> None:
    original = open_tiny(trained_folder)
    expected = original.logits(dataset.dev.inputs())
    shuffled = save_tiny(permuted(open_tiny(trained_folder).model, order), tmp_path / "given")
    given = open_tiny(shuffled)
    np.testing.assert_allclose(given.logits(dataset.dev.inputs()), expected[:, order], atol=1e-5)

    facts = make(tmp_path / "made", shuffled, adopted(), dataset)
    teacher = open_tiny(tmp_path / "made" / "model")
    np.testing.assert_allclose(teacher.logits(dataset.dev.inputs()), expected, atol=1e-5)
    assert teacher.model.config.id2label == dict(enumerate(LABELS))
    assert teacher.model.config.label2id == {name: number for number, name in enumerate(LABELS)}
    assert facts["fine_tuned_here"] is False
    check_teacher(facts, dataset, 0.05)


def matched(
    names: tuple[str, ...], labels: tuple[str, ...] = LABELS, given: list[str] | None = None
) -> list[int]:
    data = Dataset("classification", labels, SMALL.train, SMALL.dev, None)
    return match_labels(tiny_bert(names).config, adopted(labels=given), data)


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (("angry", "calm", "glad"), LABELS, [0, 1, 2]),
        # which output means angry, which calm, which glad
        (("glad", "angry", "calm"), LABELS, [1, 2, 0]),
        (("GLAD", "Angry", "caLM"), LABELS, [1, 2, 0]),
        (("STRASSE", "weg"), ("Weg", "straße"), [1, 0]),
        # exact names go first where case alone tells two apart
        (("a", "A"), ("A", "a"), [1, 0]),
    ],
)
def test_labels_are_matched_by_name(
    names: tuple[str, ...], labels: tuple[str, ...], expected: list[int]
) -> None:
    assert matched(names, labels) == expected


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("LABEL_0", "LABEL_1", "LABEL_2"), LABELS),
        (("angry", "calm", "happy"), LABELS),
        (("angry", "calm"), LABELS),
        (("angry", "calm", "glad", "other"), LABELS),
        # without regard to case these cannot be told apart
        (("a", "A"), ("B", "b")),
        (("Yes", "YES"), ("yes", "yEs")),
    ],
)
def test_labels_that_do_not_match_are_refused(
    names: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    with pytest.raises(TeacherError, match=r"cannot be matched by name.*teacher\.labels") as caught:
        matched(names, labels)
    assert ", ".join(map(repr, names)) in str(caught.value)
    assert ", ".join(map(repr, labels)) in str(caught.value)


def test_generic_names_are_taken_when_the_recipe_says_what_they_mean() -> None:
    generic = ("LABEL_0", "LABEL_1", "LABEL_2")
    assert matched(generic, given=["calm", "glad", "angry"]) == [2, 0, 1]
    with pytest.raises(TeacherError, match=r"teacher\.labels names 2 outputs, the teacher has 3"):
        matched(generic, given=["calm", "glad"])


def test_the_names_a_recipe_gives_go_before_the_models_own(
    tmp_path: Path, trained_folder: Path, dataset: Dataset
) -> None:
    """A teacher whose config calls its outputs by the wrong names."""
    expected = open_tiny(trained_folder).logits(dataset.dev.inputs())
    lying = renamed(permuted(open_tiny(trained_folder).model, [2, 0, 1]), LABELS)
    folder = save_tiny(lying, tmp_path / "lying")
    settings = adopted(labels=["glad", "angry", "calm"])
    make(tmp_path / "made", folder, settings, dataset)
    teacher = open_tiny(tmp_path / "made" / "model")
    np.testing.assert_allclose(teacher.logits(dataset.dev.inputs()), expected, atol=1e-5)


def test_regression_needs_one_output(tmp_path: Path) -> None:
    data = tiny_regression(12, 6)
    three = save_tiny(tiny_bert(), tmp_path / "three")
    with pytest.raises(TeacherError, match="has 3 outputs; regression needs exactly 1"):
        load_pretrained(source_of(three), adopted(), data)
    one = tiny_bert(("LABEL_0",))
    loaded, _ = load_pretrained(source_of(save_tiny(one, tmp_path / "one")), adopted(), data)
    assert torch.equal(loaded.classifier.weight, one.classifier.weight)
    assert loaded.config.problem_type == "regression"


# models that cannot teach


def test_only_bert_can_lend_layers(tmp_path: Path) -> None:
    folder = save_tiny(tiny_bert(), tmp_path)
    DistilBertConfig(vocab_size=108, dim=24, hidden_dim=48, n_layers=2, n_heads=4).save_pretrained(
        folder
    )
    told = r"a/model is a distilbert model; .*set student\.start to a BERT checkpoint"
    with pytest.raises(TeacherError, match=told):
        load_pretrained(source_of(folder), tuned(), SMALL)


def without(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).unlink()
    return folder


def test_what_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    save = lambda name: save_tiny(tiny_bert(), tmp_path / name)  # noqa: E731
    for folder in (
        tmp_path / "no such folder",
        without(save("no config"), "config.json"),
        without(save("no weights"), "model.safetensors"),
    ):
        with pytest.raises(TeacherError) as caught:
            load_pretrained(source_of(folder), tuned(), SMALL)
        assert f"teacher.model a/model cannot be loaded from {folder}: " in str(caught.value)
        assert "\n" not in str(caught.value)


def test_broken_weights_are_told(tmp_path: Path) -> None:
    folder = save_tiny(tiny_bert(), tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(TeacherError, match="cannot be loaded"):
        load_pretrained(source_of(folder), tuned(), SMALL)


def test_an_adopted_model_without_its_classifier_is_refused(tmp_path: Path) -> None:
    """A pre-trained BERT that names the right labels but has no head for them."""
    folder = save_tiny(tiny_bert(), tmp_path)
    tiny_bert().bert.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(number): label for number, label in enumerate(LABELS)}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(TeacherError, match=r"classifier\.weight.*teacher\.fine_tune = true"):
        make(tmp_path / "made", folder, adopted(), SMALL)


# the check


def facts_of(hits: list[int], fine_tuned_here: bool = False) -> dict[str, Any]:
    """Ten rows of each class, so many of them right, the others taken for the next class."""
    counts = np.diag(hits) + np.roll(np.diag([10 - number for number in hits]), 1, axis=1)
    evaluation = Evaluation("dev", 30, {}, {}, counts.tolist())
    return {"fine_tuned_here": fine_tuned_here, "dev": evaluation.to_facts()}


def test_the_check_asks_for_the_margin_above_the_majority() -> None:
    # 30 dev rows, ten of each class: 1/3 by always saying the same
    check_teacher(facts_of([4, 4, 4]), SMALL, 0.05)
    with pytest.raises(TeacherError) as caught:
        check_teacher(facts_of([4, 4, 3]), SMALL, 0.05)
    message = str(caught.value)
    assert "accuracy is 0.367" in message
    assert "gives 0.333" in message
    assert "required >= 0.05 (teacher.min_margin)" in message
    assert "teacher.labels" in message
    with pytest.raises(TeacherError, match=r"teacher\.learning_rate"):
        check_teacher(facts_of([2, 2, 2], fine_tuned_here=True), SMALL, 0.05)


def test_the_check_of_numbers() -> None:
    data = tiny_regression(12, 6)

    def facts(spearman: float) -> dict[str, Any]:
        score = Score(spearman, spearman - 0.1, spearman + 0.1)
        evaluation = Evaluation("dev", 6, {"spearman": score}, {}, [])
        return {"fine_tuned_here": True, "dev": evaluation.to_facts()}

    check_teacher(facts(0.06), data, 0.05)
    for spearman in (0.05, -0.9, 0.0):
        with pytest.raises(TeacherError, match=f"{spearman:.3f}, not above"):
            check_teacher(facts(spearman), data, 0.05)


def test_a_good_teacher_passes_a_random_and_a_permuted_one_do_not(
    tmp_path: Path, trained_folder: Path, dataset: Dataset
) -> None:
    check_teacher(make(tmp_path / "good", trained_folder, adopted(), dataset), dataset, 0.05)
    # random: always the same label, whatever the text
    random = tiny_bert()
    with torch.no_grad():
        random.classifier.weight.zero_()
    folder = save_tiny(random, tmp_path / "random")
    with pytest.raises(TeacherError, match=r"the teacher predicts '\w+' for every row of dev"):
        check_teacher(make(tmp_path / "made random", folder, adopted(), dataset), dataset, 0.05)
    # permuted: right about the classes, wrong about their names
    lying = renamed(permuted(open_tiny(trained_folder).model, [1, 2, 0]), LABELS)
    folder = save_tiny(lying, tmp_path / "lying")
    with pytest.raises(TeacherError, match="outputs may be in another order"):
        check_teacher(make(tmp_path / "made lying", folder, adopted(), dataset), dataset, 0.05)


def test_the_saved_teacher_is_the_adopted_one(
    tmp_path: Path, trained_folder: Path, dataset: Dataset
) -> None:
    make(tmp_path / "made", trained_folder, adopted(), dataset)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "made" / "model")
    texts = dataset.dev.inputs()
    np.testing.assert_array_equal(
        tiny_classifier(plain).logits(texts), open_tiny(trained_folder).logits(texts)
    )
