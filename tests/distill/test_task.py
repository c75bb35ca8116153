"""Both phases of task distillation from end to end on a tiny data set."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_models import (
    LABELS,
    MAX_LENGTH,
    accuracy,
    open_tiny,
    tiny_bert,
    tiny_classifier,
    tiny_dataset,
    tiny_regression,
    train_plainly,
)
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from factory.classifier import TorchClassifier
from factory.data.dataset import Dataset, Split
from factory.distill import phase as phase_module
from factory.distill import task
from factory.distill.capture import recording
from factory.distill.phase import LossPoint, Phase, total_steps
from factory.distill.task import (
    baseline_phase,
    distill,
    intermediate_losses,
    phases_of,
    train_baseline,
    weighted_sum,
)
from factory.encoding import Batch, EncodedRows, collate, encode_inputs
from factory.errors import RecipeError
from factory.recipe import (
    DistillSettings,
    IntermediateSettings,
    PredictionSettings,
    StudentSettings,
)

STUDENT = StudentSettings(
    layers=2, hidden=16, heads=4, intermediate=32, dropout=0.1, start="random"
)
SETTINGS = DistillSettings(
    seed=3,
    batch_size=16,
    intermediate=IntermediateSettings(epochs=6, learning_rate=5e-3),
    prediction=PredictionSettings(epochs=4, learning_rate=5e-3),
)
QUICK = DistillSettings(
    seed=3,
    batch_size=16,
    intermediate=IntermediateSettings(epochs=1, learning_rate=5e-3),
    prediction=PredictionSettings(epochs=1, learning_rate=5e-3),
)
LONG = DistillSettings(
    seed=3,
    batch_size=16,
    intermediate=IntermediateSettings(epochs=10, learning_rate=5e-3),
    prediction=PredictionSettings(epochs=15, learning_rate=5e-3),
)
SMALL = tiny_dataset(50, 30)  # 4 steps an epoch, the last of 2 rows


class PowerCut(Exception):
    """What interrupts a run in these tests."""


def weights(directory: Path) -> dict[str, np.ndarray]:
    return dict(load_file(directory / "model" / "model.safetensors"))


def same(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def run(
    directory: Path,
    teacher: TorchClassifier,
    split: Split = SMALL.train,
    settings: DistillSettings = QUICK,
    student: StudentSettings = STUDENT,
    stage: Callable[..., dict[str, Any]] = distill,
) -> dict[str, Any]:
    directory.mkdir(exist_ok=True)
    return stage(directory, teacher, split, student, None, settings)


def losses_of(directory: Path) -> dict[str, list[float]]:
    """Values of each `phase.term` in the loss log, in order."""
    values: dict[str, list[float]] = {}
    with (directory / "losses.csv").open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            values.setdefault(f"{row['phase']}.{row['term']}", []).append(float(row["value"]))
    return values


def hooks_of(model: nn.Module) -> list[Any]:
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, trained_folder: Path, dataset: Dataset
) -> tuple[Path, dict[str, Any]]:
    """One whole distillation: its directory and its facts."""
    directory = tmp_path_factory.mktemp("finished")
    return directory, run(directory, open_tiny(trained_folder), dataset.train, SETTINGS)


# what comes out


def test_the_student_learns(finished: tuple[Path, dict[str, Any]], dataset: Dataset) -> None:
    assert accuracy(open_tiny(finished[0] / "model"), dataset.dev) > 0.8  # chance is 1/3


def test_a_derived_start_learns_too(
    tmp_path: Path, teacher: TorchClassifier, dataset: Dataset
) -> None:
    student = STUDENT.model_copy(update={"start": "teacher"})
    run(tmp_path, teacher, dataset.train, SETTINGS, student)
    assert accuracy(open_tiny(tmp_path / "model"), dataset.dev) > 0.8


def test_the_losses_fall(finished: tuple[Path, dict[str, Any]]) -> None:
    directory, facts = finished
    values = losses_of(directory)
    terms = ["embedding", "hidden.1", "attention.1", "hidden.2", "attention.2"]
    assert set(values) == {
        "intermediate.total",
        "prediction.total",
        *(f"intermediate.{term}" for term in terms),
    }
    for name, falling in values.items():
        if name == "prediction.total":  # its floor is the teacher's entropy, not 0
            assert np.mean(falling[-8:]) < 0.85 * np.mean(falling[:4])
        else:
            assert np.mean(falling[-8:]) < 0.6 * np.mean(falling[:4]), name
        assert facts["losses"][name]["first"] == pytest.approx(falling[0], rel=1e-5)
        assert facts["losses"][name]["last"] == pytest.approx(falling[-1], rel=1e-5)
    sums = np.sum([values[f"intermediate.{term}"] for term in terms], axis=0)
    np.testing.assert_allclose(sums, values["intermediate.total"], rtol=1e-4)


def test_the_facts(finished: tuple[Path, dict[str, Any]]) -> None:
    directory, facts = finished
    assert facts["layer_map"] == [2, 3]  # 1.5 goes up
    assert facts["rows"] == 210
    assert facts["steps"] == {"intermediate": 84, "prediction": 56}  # 14 an epoch
    assert facts["parameters"] == sum(value.size for value in weights(directory).values())
    json.dumps(facts)


def test_the_student_is_a_plain_bert_folder(
    finished: tuple[Path, dict[str, Any]], dataset: Dataset, trained_folder: Path
) -> None:
    """Opened without this package, and computed once more in numpy from the saved weights."""
    folder = finished[0] / "model"
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "bert"
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {str(number): label for number, label in enumerate(LABELS)}
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.is_fast
    for name in ("tokenizer.json", "vocab.txt"):
        assert (folder / name).is_file()
    teacher_tokenizer = AutoTokenizer.from_pretrained(trained_folder)
    saved = weights(finished[0])
    assert set(saved) == set(model.state_dict()) == set(tiny_bert(num_hidden_layers=2).state_dict())
    for text in dataset.dev.texts[:5]:
        encoded = tokenizer(text, return_tensors="pt")
        assert encoded["input_ids"].tolist() == [teacher_tokenizer(text)["input_ids"]]
        with torch.no_grad():
            output = model(**encoded, output_hidden_states=True)
        first = output.hidden_states[-1][0, 0].numpy()
        pooled = np.tanh(
            saved["bert.pooler.dense.weight"] @ first + saved["bert.pooler.dense.bias"]
        )
        logits = saved["classifier.weight"] @ pooled + saved["classifier.bias"]
        np.testing.assert_allclose(output.logits[0].numpy(), logits, atol=1e-5)


def test_the_saved_student_is_the_one_in_memory(
    tmp_path: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Any] = []
    original = task._finish

    def keep(directory: Path, student: Any, *rest: Any) -> None:
        trained.append(student)
        original(directory, student, *rest)

    monkeypatch.setattr(task, "_finish", keep)
    run(tmp_path, teacher)
    texts = SMALL.dev.inputs()
    in_memory = tiny_classifier(trained[0]).logits(texts)
    np.testing.assert_array_equal(open_tiny(tmp_path / "model").logits(texts), in_memory)


def test_nothing_of_the_training_stays(finished: tuple[Path, dict[str, Any]]) -> None:
    names = sorted(path.name for path in finished[0].iterdir())
    assert names == ["losses.csv", "model", "teacher_logits.npy"]


def test_the_shortest_run_leaves_a_student(tmp_path: Path, teacher: TorchClassifier) -> None:
    """Five rows, a batch of 16, one epoch: one step in each phase, and it counts."""
    split = tiny_dataset(5, 3).train
    facts = run(tmp_path / "one", teacher, split)
    assert facts["steps"] == {"intermediate": 1, "prediction": 1}
    none = QUICK.model_copy(
        update={
            "intermediate": IntermediateSettings(epochs=0),
            "prediction": PredictionSettings(epochs=0),
        }
    )
    untrained = run(tmp_path / "none", teacher, split, none)
    assert untrained["steps"] == {"intermediate": 0, "prediction": 0}
    before, after = weights(tmp_path / "none"), weights(tmp_path / "one")
    moved = [name for name in before if not np.array_equal(before[name], after[name])]
    assert {name.split(".")[0] for name in moved} == {"bert", "classifier"}


# the same again, and after an interruption


def test_two_runs_give_the_same_weights(tmp_path: Path, trained_folder: Path) -> None:
    for name, noise in (("first", 1), ("second", 2)):
        torch.manual_seed(noise)
        np.random.seed(noise)  # noqa: NPY002 - whatever ran before in the process
        run(tmp_path / name, open_tiny(trained_folder))
    assert same(weights(tmp_path / "first"), weights(tmp_path / "second"))
    assert losses_of(tmp_path / "first") == losses_of(tmp_path / "second")
    other = QUICK.model_copy(update={"seed": 4})
    run(tmp_path / "fourth", open_tiny(trained_folder), settings=other)
    assert not same(weights(tmp_path / "first"), weights(tmp_path / "fourth"))


@pytest.mark.parametrize(
    ("loss", "calls"), [("hidden_loss", 8), ("prediction_loss", 0), ("prediction_loss", 3)]
)
def test_an_interrupted_run_ends_with_the_same_weights(
    tmp_path: Path,
    trained_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    loss: str,
    calls: int,
) -> None:
    """Cut in the intermediate phase (three such losses a step), at and in the prediction phase."""
    run(tmp_path / "whole", open_tiny(trained_folder))
    monkeypatch.setattr(phase_module, "CHECKPOINT_SECONDS", -1.0)
    original = getattr(task, loss)
    left = [calls]

    def failing(*arguments: Any) -> Tensor:
        if not left[0]:
            raise PowerCut
        left[0] -= 1
        result: Tensor = original(*arguments)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(task, loss, failing)
        with pytest.raises(PowerCut):
            run(tmp_path / "cut", open_tiny(trained_folder))
    assert list((tmp_path / "cut").glob("*.checkpoint"))
    torch.manual_seed(77)
    run(tmp_path / "cut", open_tiny(trained_folder))
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    assert losses_of(tmp_path / "cut") == losses_of(tmp_path / "whole")
    names = sorted(path.name for path in (tmp_path / "cut").iterdir())
    assert names == ["losses.csv", "model", "teacher_logits.npy"]


def test_hooks_are_gone_after_a_failure(
    tmp_path: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_arguments: Any) -> Tensor:
        raise PowerCut

    monkeypatch.setattr(task, "hidden_loss", failing)
    with pytest.raises(PowerCut):
        run(tmp_path, teacher)
    assert not hooks_of(teacher.model)


def test_the_recipe_is_not_changed(tmp_path: Path, teacher: TorchClassifier) -> None:
    settings, student = QUICK.model_dump(), STUDENT.model_dump()
    run(tmp_path / "student", teacher)
    run(tmp_path / "baseline", teacher, stage=train_baseline)
    assert QUICK.model_dump() == settings
    assert STUDENT.model_dump() == student


# the teacher


def test_the_teacher_is_only_read(tmp_path: Path, teacher: TorchClassifier) -> None:
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    run(tmp_path, teacher)
    after = teacher.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in teacher.model.parameters())
    assert not hooks_of(teacher.model)


Spy = Callable[[Phase, nn.ModuleDict, EncodedRows, Callable[[Batch], Any]], None]


def spy_on_phases(monkeypatch: pytest.MonkeyPatch, look: Spy) -> list[str]:
    """Call `look` at the start of each phase, then train as usual; returns the phases' names."""
    names: list[str] = []
    original = task.train_phase

    def spying(
        phase: Phase, modules: nn.ModuleDict, rows: EncodedRows, losses: Any, *rest: Any
    ) -> list[LossPoint]:
        names.append(phase.name)
        look(phase, modules, rows, losses)
        return original(phase, modules, rows, losses, *rest)

    monkeypatch.setattr(task, "train_phase", spying)
    return names


def test_the_teachers_dropout_is_off_while_it_teaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher left in training mode with a dropout of one half teaches the same thing twice."""
    model = tiny_bert(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    teacher = tiny_classifier(model)
    expected = teacher.logits(SMALL.train.inputs())
    model.train()

    def look(_phase: Phase, modules: nn.ModuleDict, rows: EncodedRows, losses: Any) -> None:
        modules.eval()  # only the student's dropout
        batch = collate(rows, np.arange(16), "cpu")
        with torch.no_grad():
            assert losses(batch)[0].item() == losses(batch)[0].item()
        assert not any(module.training for module in model.modules())

    names = spy_on_phases(monkeypatch, look)
    run(tmp_path, teacher)
    assert names == ["intermediate", "prediction"]
    np.testing.assert_array_equal(np.load(tmp_path / "teacher_logits.npy"), expected)
    assert not any(module.training for module in model.modules())


def test_gradients_reach_the_student_and_not_the_teacher(
    tmp_path: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    untouched: dict[str, set[str]] = {}

    def look(phase: Phase, modules: nn.ModuleDict, rows: EncodedRows, losses: Any) -> None:
        losses(collate(rows, np.arange(16), "cpu"))[0].backward()
        untouched[phase.name] = {
            ".".join(name.split(".")[:2])
            for name, parameter in modules.named_parameters()
            if parameter.grad is None
        }
        modules.zero_grad(set_to_none=True)
        for parameter in teacher.model.parameters():
            assert parameter.grad is None
            assert not parameter.requires_grad

    spy_on_phases(monkeypatch, look)
    run(tmp_path, teacher)
    # the intermediate phase has no use for the classifier, which the prediction phase trains
    assert untouched == {
        "intermediate": {"student.classifier", "student.bert"},
        "prediction": set(),
    }


def test_the_prediction_phase_runs_the_bare_student(
    tmp_path: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No projections, no hooks, no forward pass of the teacher."""
    modules_of: dict[str, list[str]] = {}
    teacher_passes: dict[str, int] = {}

    def look(phase: Phase, modules: nn.ModuleDict, rows: EncodedRows, losses: Any) -> None:
        modules_of[phase.name] = sorted(modules.keys())
        is_prediction = phase.name == "prediction"
        assert bool(hooks_of(modules["student"])) != is_prediction
        assert bool(hooks_of(teacher.model)) != is_prediction
        passes: list[int] = []
        handle = teacher.model.bert.register_forward_hook(lambda *_: passes.append(1))
        losses(collate(rows, np.arange(4), "cpu"))
        handle.remove()
        teacher_passes[phase.name] = len(passes)

    spy_on_phases(monkeypatch, look)
    run(tmp_path, teacher)
    assert modules_of == {"intermediate": ["projections", "student"], "prediction": ["student"]}
    assert teacher_passes == {"intermediate": 1, "prediction": 0}


def test_the_teachers_logits_are_computed_once(
    tmp_path: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = task._cached_logits(tmp_path, teacher, SMALL.train)
    np.testing.assert_array_equal(first, teacher.logits(SMALL.train.inputs()))
    monkeypatch.setattr(TorchClassifier, "logits", None)
    np.testing.assert_array_equal(task._cached_logits(tmp_path, teacher, SMALL.train), first)


def test_each_row_meets_its_own_logits(
    tmp_path: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prediction loss of a shuffled batch against the rows' texts run one by one."""
    temperature = 2.0

    def look(phase: Phase, modules: nn.ModuleDict, rows: EncodedRows, losses: Any) -> None:
        if phase.name == "intermediate":
            return
        student = tiny_classifier(modules["student"])
        positions = np.array([41, 3, 17, 8, 30])
        texts = [SMALL.train.texts[position] for position in positions]
        total = 0.0
        for text in texts:
            theirs, ours = (m.logits([text])[0].astype(float) / temperature for m in (teacher, student))
            wanted = np.exp(theirs) / np.exp(theirs).sum()
            total -= float((wanted * (ours - np.log(np.exp(ours).sum()))).sum())
        loss = losses(collate(rows, positions, "cpu"))[0].item()
        assert loss == pytest.approx(total / 5 * temperature**2, rel=1e-4)

    spy_on_phases(monkeypatch, look)
    prediction = PredictionSettings(epochs=1, temperature=temperature)
    run(tmp_path, teacher, settings=QUICK.model_copy(update={"prediction": prediction}))


# what the student learns from


def garbled(split: Split) -> Split:
    """The same texts with annotations that say nothing."""
    targets = [1e6 if isinstance(target, float) else 0 for target in split.targets]
    return Split(split.name, split.texts, split.text_pairs, targets)


def test_annotations_do_not_enter(tmp_path: Path, trained_folder: Path) -> None:
    run(tmp_path / "true", open_tiny(trained_folder))
    run(tmp_path / "garbled", open_tiny(trained_folder), garbled(SMALL.train))
    assert same(weights(tmp_path / "true"), weights(tmp_path / "garbled"))


def test_regression_learns_the_teachers_outputs(tmp_path: Path) -> None:
    data = tiny_regression()
    model = tiny_bert(data.labels, problem_type="regression")
    train_plainly(model, data.train, epochs=20)
    teacher = tiny_classifier(model)
    run(tmp_path, teacher, garbled(data.train), LONG)
    wanted = teacher.logits(data.dev.inputs())[:, 0]
    student = open_tiny(tmp_path / "model")
    assert student.model.config.problem_type == "regression"
    assert student.model.config.id2label == {0: "value"}
    got = student.logits(data.dev.inputs())[:, 0]
    assert np.std(wanted) > 0.5
    assert np.corrcoef(wanted, got)[0, 1] > 0.8
    assert np.abs(got).max() < 10
    values = losses_of(tmp_path)["prediction.total"]
    assert values[0] < 100  # squared distance to the annotations would be 1e12
    assert np.mean(values[-5:]) < 0.5 * np.mean(values[:5])


# the loss of the intermediate phase


def recorded_terms(
    teacher: TorchClassifier, student: Any, projections: nn.ModuleList, batch: Batch
) -> dict[str, Tensor]:
    with (
        torch.no_grad(),
        recording(student.bert, (1, 2)) as ours,
        recording(teacher.model.bert, (2, 3)) as theirs,
    ):
        for model in (student, teacher.model):
            model.bert(batch.input_ids, batch.attention_mask, batch.token_type_ids)
        return intermediate_losses(ours, theirs, projections, (2, 3), batch.attention_mask)


def states_and_scores(model: Any, text: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Hidden states, and attention scores worked out from the weights, of one text alone."""
    encoded = tiny_classifier(model).tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        states = [s[0].numpy() for s in model.bert(**encoded, output_hidden_states=True).hidden_states]
    scores = []
    for state, block in zip(states, model.bert.encoder.layer, strict=False):
        query, key = (
            state @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
            for linear in (block.attention.self.query, block.attention.self.key)
        )
        width = query.shape[1] // 4
        heads = [slice(head * width, (head + 1) * width) for head in range(4)]
        scores.append(np.stack([query[:, h] @ key[:, h].T / width**0.5 for h in heads]))
    return states, scores


def test_every_term_against_each_text_alone(teacher: TorchClassifier) -> None:
    student = tiny_bert(seed=5, num_hidden_layers=2, hidden_size=16, intermediate_size=32)
    torch.manual_seed(0)
    projections = nn.ModuleList(nn.Linear(16, 24) for _ in range(3))
    texts = SMALL.train.texts[:6]
    rows = encode_inputs(teacher.tokenizer, texts, MAX_LENGTH)
    assert len(set(rows.lengths.tolist())) > 2  # the batch below is padded
    terms = recorded_terms(teacher, student, projections, collate(rows, np.arange(6), "cpu"))

    squares: dict[str, list[float]] = {name: [] for name in terms}
    for text in texts:
        ours, our_scores = states_and_scores(student, text)
        theirs, their_scores = states_and_scores(teacher.model, text)
        for position, layer in enumerate((0, 2, 3)):
            linear = projections[position]
            projected = ours[position] @ linear.weight.detach().numpy().T
            difference = projected + linear.bias.detach().numpy() - theirs[layer]
            name = f"hidden.{position}" if position else "embedding"
            squares[name] += (difference**2).ravel().tolist()
        for position, layer in ((1, 2), (2, 3)):
            difference = our_scores[position - 1] - their_scores[layer - 1]
            squares[f"attention.{position}"] += (difference**2).ravel().tolist()
    assert list(terms) == ["embedding", "hidden.1", "attention.1", "hidden.2", "attention.2"]
    for name, term in terms.items():
        assert term.item() == pytest.approx(np.mean(squares[name]), rel=1e-3), name


def test_the_maximum_length_does_not_change_the_terms(teacher: TorchClassifier) -> None:
    student = tiny_bert(seed=5, num_hidden_layers=2, hidden_size=16, intermediate_size=32)
    projections = nn.ModuleList(nn.Linear(16, 24) for _ in range(3))
    rows = encode_inputs(teacher.tokenizer, SMALL.train.texts[:6], MAX_LENGTH)
    narrow = collate(rows, np.arange(6), "cpu")
    extra = 30 - narrow.input_ids.shape[1]
    wide = Batch(
        *(
            nn.functional.pad(values, (0, extra))
            for values in (narrow.input_ids, narrow.token_type_ids, narrow.attention_mask)
        ),
        rows=narrow.rows,
    )
    first = recorded_terms(teacher, student, projections, narrow)
    second = recorded_terms(teacher, student, projections, wide)
    for name, term in first.items():
        assert second[name].item() == pytest.approx(term.item(), rel=1e-4), name


def test_the_weighted_sum_by_hand() -> None:
    terms = {
        "embedding": torch.tensor(1.0),
        "hidden.1": torch.tensor(10.0),
        "attention.1": torch.tensor(100.0),
        "hidden.2": torch.tensor(1000.0),
    }
    settings = IntermediateSettings(embedding_weight=2.0, hidden_weight=3.0, attention_weight=0.5)
    assert weighted_sum(terms, settings).item() == 2 + 30 + 50 + 3000


def test_other_head_counts_need_the_attention_loss_off(
    tmp_path: Path, teacher: TorchClassifier
) -> None:
    student = STUDENT.model_copy(update={"heads": 2})
    with pytest.raises(RecipeError, match=r"student\.heads = 4") as caught:
        run(tmp_path / "refused", teacher, student=student)
    assert "distill.intermediate.attention_weight = 0" in str(caught.value)
    without = IntermediateSettings(epochs=1, attention_weight=0.0)
    run(
        tmp_path / "taken",
        teacher,
        student=student,
        settings=QUICK.model_copy(update={"intermediate": without}),
    )
    assert open_tiny(tmp_path / "taken" / "model").model.config.num_attention_heads == 2
    assert "intermediate.hidden.2" in losses_of(tmp_path / "taken")
    assert "intermediate.attention.2" not in losses_of(tmp_path / "taken")


# the phases and the baseline


def test_the_recipe_decides_both_phases() -> None:
    settings = DistillSettings(
        seed=8,
        batch_size=4,
        weight_decay=0.2,
        intermediate=IntermediateSettings(epochs=2.5, learning_rate=1e-3, warmup=0.3),
        prediction=PredictionSettings(epochs=1.5, learning_rate=2e-3, warmup=0.4),
    )
    assert phases_of(settings) == (
        Phase("intermediate", 2.5, 4, 1e-3, 0.3, 0.2, 8),
        Phase("prediction", 1.5, 4, 2e-3, 0.4, 0.2, 8),
    )


@pytest.mark.parametrize("rows", [7, 28, 44, 210, 8551])
@pytest.mark.parametrize("epochs", [(6.0, 3.0), (4.15, 0.7), (0.0, 1.0)])
def test_the_baseline_gets_the_same_number_of_steps(
    rows: int, epochs: tuple[float, float]
) -> None:
    settings = DistillSettings(
        batch_size=4,
        intermediate=IntermediateSettings(epochs=epochs[0], learning_rate=3e-4),
        prediction=PredictionSettings(epochs=epochs[1], learning_rate=5e-5),
    )
    phase = baseline_phase(settings, rows)
    distilled = sum(total_steps(one, rows) for one in phases_of(settings))
    assert total_steps(phase, rows) == distilled
    assert phase.learning_rate == 3e-4


def test_the_baseline_learns_the_annotations_not_the_teacher(
    tmp_path: Path, trained_folder: Path, dataset: Dataset
) -> None:
    settings = SETTINGS.model_copy(update={"baseline": "random"})
    student = STUDENT.model_copy(update={"start": "teacher"})
    stranger = tiny_classifier(tiny_bert(seed=20))
    train = dataset.train
    facts = run(tmp_path / "one", open_tiny(trained_folder), train, settings, student, train_baseline)
    run(tmp_path / "two", stranger, train, settings, student, train_baseline)
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert accuracy(open_tiny(tmp_path / "one" / "model"), dataset.dev) > 0.6
    assert facts["steps"] == 84 + 56
    values = losses_of(tmp_path / "one")
    assert list(values) == ["baseline.total"]
    assert values["baseline.total"][0] == pytest.approx(np.log(3), abs=0.3)


def test_the_baseline_may_start_where_the_student_does(
    tmp_path: Path, trained_folder: Path
) -> None:
    nothing = DistillSettings(
        baseline="same",
        intermediate=IntermediateSettings(epochs=0),
        prediction=PredictionSettings(epochs=0),
    )
    student = STUDENT.model_copy(update={"start": "teacher"})
    arguments = (SMALL.train, nothing, student)
    run(tmp_path / "student", open_tiny(trained_folder), *arguments)
    run(tmp_path / "baseline", open_tiny(trained_folder), *arguments, stage=train_baseline)
    assert same(weights(tmp_path / "student"), weights(tmp_path / "baseline"))


def test_the_baseline_fits_numbers(tmp_path: Path) -> None:
    data = tiny_regression()
    teacher = tiny_classifier(tiny_bert(data.labels, problem_type="regression"))
    run(tmp_path, teacher, data.train, LONG, stage=train_baseline)
    values = losses_of(tmp_path)["baseline.total"]
    assert np.mean(values[-5:]) < 0.5 * np.mean(values[:5])
