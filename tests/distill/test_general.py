"""General distillation on tiny models: what it minimizes, what it leaves, resumed and refused."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.pipeline_run import line_recipe
from helpers.tiny_models import (
    FILLERS,
    KEYWORDS,
    save_tiny,
    tiny_bert,
    tiny_classifier,
    tiny_tokenizer,
)
from safetensors.numpy import load_file, save_file
from tiny_runs import PowerCut, losses_of, same
from transformers import AutoModel, AutoTokenizer, BertModel, ElectraConfig, ElectraModel

from factory.data.corpus import make_corpus
from factory.data.shards import PackedRows, open_rows
from factory.distill.general import general_distill, load_base_teacher
from factory.distill.student import start_student
from factory.errors import RecipeError, TeacherError
from factory.models.classifier import TorchClassifier
from factory.models.encoding import encode_inputs
from factory.models.source import ModelSource
from factory.recipe.recipe import Recipe
from factory.recipe.training import GeneralSettings
from factory.training import trainer

LENGTH = 16
LAYER_MAP = (2, 3)


def source_of(folder: Path) -> ModelSource:
    return ModelSource(str(folder), None, "sha256:test")


def recipe_of(changes: dict[str, Any] | None = None) -> Recipe:
    fields = {
        "general.corpus": "corpus.txt",
        "general.max_length": LENGTH,
        "general.batch_size": 8,
        "general.epochs": 4.0,
        "general.learning_rate": 5e-3,
        "student.hidden": 16,
        "student.dropout": 0.1,
    }
    return line_recipe({**fields, **(changes or {})})


def general_of(recipe: Recipe) -> GeneralSettings:
    assert recipe.general is not None
    return recipe.general


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher that is a plain `BertModel`, and a corpus packed with it."""
    folder = tmp_path_factory.mktemp("general")
    save_tiny(tiny_bert().bert, folder / "teacher")
    random = np.random.default_rng(3)
    words = [*FILLERS, *(word for own in KEYWORDS.values() for word in own)]
    texts = [" ".join(random.choice(words, size=random.integers(3, 20))) for _ in range(60)]
    (folder / "corpus.txt").write_text("\n".join(texts), encoding="utf-8")
    (folder / "packed").mkdir()
    make_corpus(folder / "packed", general_of(recipe_of()), source_of(folder / "teacher"), folder)
    return folder


def rows_of(base: Path) -> PackedRows:
    return open_rows(base / "packed")


def run(directory: Path, base: Path, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    directory.mkdir(exist_ok=True)
    recipe = recipe_of(changes)
    teacher = load_base_teacher(source_of(base / "teacher"), general_of(recipe), "cpu")
    return general_distill(directory, teacher, rows_of(base), recipe)


def files_of(directory: Path) -> dict[str, dict[str, np.ndarray]]:
    names = ("model.safetensors", "projections.safetensors")
    return {name: dict(load_file(directory / "model" / name)) for name in names}


def same_files(a: Path, b: Path) -> bool:
    ours, theirs = files_of(a), files_of(b)
    return all(same(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[Path, dict[str, Any]]:
    """One whole run: its directory and its facts."""
    directory = tmp_path_factory.mktemp("finished")
    return directory, run(directory, base)


# results


def test_the_result_is_a_plain_model_with_its_projections(
    finished: tuple[Path, dict[str, Any]], base: Path
) -> None:
    directory, facts = finished
    folder = directory / "model"
    model, loading = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert type(model) is BertModel
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (16, 2)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("my order")["input_ids"] == tiny_tokenizer()("my order")["input_ids"]
    projections = load_file(folder / "projections.safetensors")
    assert {name: value.shape for name, value in projections.items()} == {
        f"{position}.{kind}": shape
        for position in range(3)
        for kind, shape in (("weight", (24, 16)), ("bias", (24,)))
    }
    rows = rows_of(base)
    assert facts["rows"] == len(rows)
    assert facts["tokens_seen"] == 4 * rows.lengths.sum()
    assert facts["epochs"] == 4.0
    assert facts["steps"] == 4 * -(-len(rows) // 8)
    assert facts["layer_map"] == list(LAYER_MAP)
    assert facts["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert {path.name for path in directory.iterdir()} == {"model", "losses.csv"}


def test_every_term_is_logged_and_falls(tmp_path: Path, base: Path) -> None:
    facts = run(tmp_path, base, {"general.start": "random"})
    terms = {"embedding", "hidden.1", "hidden.2", "attention.1", "attention.2"}
    values = losses_of(tmp_path)
    assert set(values) == {f"general.{term}" for term in (*terms, "total")}
    for term in terms:
        assert values[f"general.{term}"][-1] < 0.8 * values[f"general.{term}"][0]
        assert facts["losses"][f"general.{term}"]["last"] == pytest.approx(
            values[f"general.{term}"][-1], rel=1e-4
        )


def test_the_derived_start_is_nearer_to_the_teacher(
    tmp_path: Path, finished: tuple[Path, dict[str, Any]], base: Path
) -> None:
    random = run(tmp_path, base, {"general.start": "random", "general.epochs": 0.5})["losses"]
    derived = finished[1]["losses"]
    assert derived["general.total"]["first"] < 0.5 * random["general.total"]["first"]


def test_the_losses_are_those_of_the_saved_models(tmp_path: Path, base: Path) -> None:
    """All rows in one step that moves nothing: the log equals what plain transformers gives."""
    rows = rows_of(base)
    still = {
        "general.learning_rate": 1e-12,
        "general.epochs": 1.0,
        "general.batch_size": len(rows),
        "student.dropout": 0.0,
    }
    losses = run(tmp_path, base, still)["losses"]
    batch = rows.padded(np.arange(len(rows)))
    mask = batch.attention_mask.astype(bool)
    hidden = {}
    for name, folder in (("teacher", base / "teacher"), ("student", tmp_path / "model")):
        model = AutoModel.from_pretrained(folder).eval()
        with torch.no_grad():
            output = model(
                torch.from_numpy(batch.input_ids),
                torch.from_numpy(batch.attention_mask),
                output_hidden_states=True,
            )
        hidden[name] = [state.numpy()[mask] for state in output.hidden_states]
    projections = load_file(tmp_path / "model" / "projections.safetensors")
    for position, layer in enumerate((0, *LAYER_MAP)):
        weight, bias = projections[f"{position}.weight"], projections[f"{position}.bias"]
        difference = hidden["student"][position] @ weight.T + bias - hidden["teacher"][layer]
        term = f"general.hidden.{position}" if position else "general.embedding"
        assert losses[term]["first"] == pytest.approx(np.square(difference).mean(), rel=1e-4)


def test_the_teacher_is_the_base_model_as_it_is(base: Path) -> None:
    teacher = load_base_teacher(source_of(base / "teacher"), general_of(recipe_of()), "cpu")
    plain = BertModel.from_pretrained(base / "teacher").state_dict()
    assert all(torch.equal(plain[name], w) for name, w in teacher.model.bert.state_dict().items())
    assert not teacher.model.training


# resume


def test_interrupted_within_an_epoch_it_ends_with_the_same_bytes(
    tmp_path: Path,
    finished: tuple[Path, dict[str, Any]],
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps_an_epoch = -(-len(rows_of(base)) // 8)
    assert steps_an_epoch > 4

    def cut(*_: Any) -> None:
        raise PowerCut

    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", -1.0)
    for cut_after in (2, steps_an_epoch + 1):  # in the first epoch, then in a later one
        with monkeypatch.context() as patch:
            batches = itertools.chain(itertools.repeat(trainer.collate, cut_after), [cut])
            patch.setattr(trainer, "collate", lambda *rest, b=batches: next(b)(*rest))
            with pytest.raises(PowerCut):
                run(tmp_path / "cut", base)
        assert (tmp_path / "cut" / "general.checkpoint").is_file()
        torch.manual_seed(999)
    run(tmp_path / "cut", base)
    assert same_files(finished[0], tmp_path / "cut")
    assert losses_of(finished[0]) == losses_of(tmp_path / "cut")
    run(tmp_path / "seed", base, {"general.seed": 2})
    assert not same_files(finished[0], tmp_path / "seed")


# as the start of a task student


def start(source: Path, teacher: TorchClassifier, changes: dict[str, Any] | None = None) -> Any:
    settings = recipe_of({"student.start": "general", **(changes or {})}).student
    rows = encode_inputs(teacher.tokenizer, ["my order is late"], LENGTH)
    return start_student(settings, source_of(source), teacher, LAYER_MAP, rows, seed=1)


def test_a_task_student_starts_from_its_weights_and_projections(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder = finished[0] / "model"
    begun = start(folder, tiny_classifier(tiny_bert(seed=5)))
    encoder = BertModel.from_pretrained(folder).state_dict()
    found = begun.model.bert.state_dict()
    assert found.keys() == encoder.keys()
    assert all(torch.equal(encoder[name], found[name]) for name in encoder)
    projections = load_file(folder / "projections.safetensors")
    state = {name: value.numpy() for name, value in begun.projections.state_dict().items()}
    assert same(projections, state)


def test_projections_that_cannot_be_used(
    tmp_path: Path, finished: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(finished[0] / "model", tmp_path / "model")
    begun = start(folder, tiny_classifier(tiny_bert(hidden_size=32)))
    assert [projection.weight.shape for projection in begun.projections] == [(32, 16)] * 3
    told = capsys.readouterr().err
    assert "made for a teacher 24 wide, this one is 32; new width projections" in told
    encoder = BertModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(encoder[n], w) for n, w in begun.model.bert.state_dict().items())
    file = folder / "projections.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(RecipeError, match=r"projections\.safetensors: damaged"):
        start(folder, tiny_classifier(tiny_bert()))
    file.unlink()
    start(folder, tiny_classifier(tiny_bert()))
    assert "new width projections" in capsys.readouterr().err


# refused


def refused(tmp_path: Path, base: Path, kind: type[Exception], **changes: Any) -> str:
    with pytest.raises(kind) as caught:
        run(tmp_path, base, {name.replace("__", "."): value for name, value in changes.items()})
    return str(caught.value)


def test_another_number_of_heads_is_compared_by_relations(tmp_path: Path, base: Path) -> None:
    facts = run(tmp_path, base, {"student.heads": 2})
    assert [term for term in facts["losses"] if "attention" in term]
    refused_scores = {"student.heads": 2, "general.attention": "scores"}
    with pytest.raises(RecipeError, match="heads"):
        run(tmp_path / "scores", base, refused_scores)


def test_rows_longer_than_the_teacher_reads(tmp_path: Path, base: Path) -> None:
    told = refused(tmp_path, base, RecipeError, general__max_length=64)
    assert "general.max_length" in told
    assert "reads at most 32 tokens" in told
    settings = GeneralSettings(corpus="corpus.txt", max_length=64)
    with pytest.raises(RecipeError, match="reads at most 32"):  # before anything is tokenized
        make_corpus(tmp_path, settings, source_of(base / "teacher"), base)


def test_teachers_that_are_no_whole_bert(tmp_path: Path, base: Path) -> None:
    settings = general_of(recipe_of())
    tiny = ElectraConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    save_tiny(ElectraModel(tiny), tmp_path / "electra")
    with pytest.raises(TeacherError, match="is a electra model"):
        load_base_teacher(source_of(tmp_path / "electra"), settings, "cpu")
    save_tiny(tiny_bert().bert, tmp_path / "part")
    file = tmp_path / "part" / "model.safetensors"
    weights = load_file(file)
    save_file(
        {name: w for name, w in weights.items() if "layer.1.output" not in name},
        file,
        metadata={"format": "pt"},
    )
    with pytest.raises(TeacherError, match=r"no weights for bert\.encoder\.layer\.1\.output"):
        load_base_teacher(source_of(tmp_path / "part"), settings, "cpu")
    with pytest.raises(TeacherError, match="cannot be loaded"):
        load_base_teacher(source_of(tmp_path / "nowhere"), settings, "cpu")
