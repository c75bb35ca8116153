"""Starts from checkpoints: the public general student's format, and another distilled student."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.pipeline_run import ROOT, python
from helpers.reference_checkpoint import FIELDS, TEACHER_HIDDEN, reference_state, write_reference
from helpers.tiny_models import LABELS, save_tiny, tiny_bert
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from factory.data.dataset import Dataset
from factory.distill.student import StudentStart, start_student
from factory.errors import RecipeError
from factory.models.classifier import TorchClassifier
from factory.models.encoding import encode_inputs
from factory.models.source import ModelSource
from factory.recipe.training import StudentSettings

SHAPE: dict[str, Any] = {"layers": 2, "hidden": 16, "heads": 4, "intermediate": 32}


def write_shards(folder: Path, state: Mapping[str, Tensor], suffix: str) -> Path:
    """The same weights over two files and an index; the projections stand in both."""
    write_reference(folder, state)
    (folder / "pytorch_model.bin").unlink()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    placed = {name: f"{stem}-0000{1 + n % 2}-of-00002.{suffix}" for n, name in enumerate(state)}
    for file in sorted(set(placed.values())):
        part = {name: state[name].contiguous() for name in state if placed[name] == file}
        if suffix == "safetensors":
            save_file(part, folder / file, metadata={"format": "pt"})
        else:
            torch.save(part, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": placed}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    return folder


def start(
    teacher: TorchClassifier, dataset: Dataset, folder: Path, seed: int = 1, **changes: Any
) -> StudentStart:
    settings = StudentSettings(**{**SHAPE, "start": str(folder), **changes})
    rows = encode_inputs(teacher.tokenizer, dataset.train.inputs(), teacher.max_length)
    source = ModelSource(str(folder), None, "test")
    return start_student(settings, source, teacher, (2, 3), rows, seed)


def projections_of(begun: StudentStart) -> list[nn.Linear]:
    return [projection for projection in begun.projections if isinstance(projection, nn.Linear)]


def has_encoder(begun: StudentStart, state: Mapping[str, Tensor]) -> bool:
    own = begun.model.bert.state_dict()
    return all(torch.equal(own[name], state[f"bert.{name}"]) for name in own)


def holds(begun: StudentStart, state: Mapping[str, Tensor]) -> bool:
    """Whether projection i is the stored one i."""
    assert len(begun.projections) == 3
    return all(
        torch.equal(getattr(projection, part), state[f"fit_denses.{layer}.{part}"])
        for layer, projection in enumerate(begun.projections)
        for part in ("weight", "bias")
    )


# the public general student


@pytest.mark.parametrize("zipped", [False, True])
def test_the_references_folder_is_taken_with_its_projections(
    teacher: TorchClassifier,
    dataset: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    zipped: bool,
) -> None:
    state = reference_state()
    folder = write_reference(tmp_path, state, zipped)
    begun = start(teacher, dataset, folder)
    assert has_encoder(begun, state)
    assert holds(begun, state)
    assert begun.model.config.id2label == dict(enumerate(LABELS))
    told = capsys.readouterr().err
    assert f"student.start {folder}: trained width projections loaded, all 3" in told
    assert "new classifier, the checkpoint has none" in told


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_sharded_weights_are_gathered(
    teacher: TorchClassifier, dataset: Dataset, tmp_path: Path, suffix: str
) -> None:
    state = reference_state()
    begun = start(teacher, dataset, write_shards(tmp_path, state, suffix))
    assert has_encoder(begun, state)
    assert holds(begun, state)


def test_one_safetensors_file_is_read(
    teacher: TorchClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    state = reference_state()
    folder = write_reference(tmp_path, state)
    (folder / "pytorch_model.bin").unlink()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert holds(start(teacher, dataset, folder), state)


def test_an_encoder_without_a_prefix_and_projections_with_one(
    teacher: TorchClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    state = reference_state()
    renamed = {
        name.removeprefix("bert.") if name.startswith("bert.") else f"student.{name}": tensor
        for name, tensor in state.items()
        if not name.startswith("cls.")
    }
    begun = start(teacher, dataset, write_reference(tmp_path, renamed))
    assert has_encoder(begun, state)
    assert holds(begun, state)


def test_one_shared_projection_serves_every_layer(
    teacher: TorchClassifier,
    dataset: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = {n: t for n, t in reference_state().items() if not n.startswith("fit_denses")}
    weight, bias = torch.randn(TEACHER_HIDDEN, 16), torch.randn(TEACHER_HIDDEN)
    state |= {"fit_dense.weight": weight, "fit_dense.bias": bias}
    begun = start(teacher, dataset, write_reference(tmp_path, state))
    assert [torch.equal(p.weight, weight) for p in projections_of(begun)] == [True] * 3
    assert [torch.equal(p.bias, bias) for p in projections_of(begun)] == [True] * 3
    # each learns on its own from there
    assert len({p.weight.data_ptr() for p in projections_of(begun)}) == 3
    assert "the one for all layers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("none", "the checkpoint holds none (fit_denses.*)"),
        ("wide", "fit_denses.0.weight has the shape (768, 16), teacher and student need (24, 16)"),
        ("few", "the checkpoint holds 2 of them, the student needs 3"),
        ("no bias", "fit_denses.1.bias is missing"),
    ],
)
def test_projections_that_do_not_fit_start_new_and_that_is_said(
    teacher: TorchClassifier,
    dataset: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: str,
    reason: str,
) -> None:
    state = reference_state()
    if change == "none":
        state = {n: t for n, t in state.items() if not n.startswith("fit_denses")}
    elif change == "wide":
        for layer in range(3):
            state[f"fit_denses.{layer}.weight"] = torch.zeros(768, 16)
            state[f"fit_denses.{layer}.bias"] = torch.zeros(768)
    elif change == "few":
        del state["fit_denses.2.weight"], state["fit_denses.2.bias"]
    else:
        del state["fit_denses.1.bias"]
    folder = write_reference(tmp_path, state)
    begun = start(teacher, dataset, folder)
    assert has_encoder(begun, state)
    assert [tuple(p.weight.shape) for p in projections_of(begun)] == [(24, 16)] * 3
    if change in ("few", "no bias"):  # all or nothing
        assert not torch.equal(projections_of(begun)[0].weight, state["fit_denses.0.weight"])
    told = capsys.readouterr().err
    assert f"student.start {folder}: new width projections: {reason}" in told


def test_a_checkpoint_without_part_of_the_encoder_is_refused(
    teacher: TorchClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    state = reference_state()
    lost = [name for name in state if name.startswith("bert.encoder.layer.1.attention.self.")]
    for name in lost:
        del state[name]
    with pytest.raises(RecipeError, match=r"no weights for bert\.encoder\.layer\.1\..* 5 more"):
        start(teacher, dataset, write_reference(tmp_path, state))


def test_a_new_pooler_is_told(
    teacher: TorchClassifier,
    dataset: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = {n: t for n, t in reference_state().items() if "pooler" not in n}
    start(teacher, dataset, write_reference(tmp_path, state))
    assert "new pooler, the checkpoint has none" in capsys.readouterr().err


# another distilled student


def distilled(folder: Path, labels: tuple[str, ...]) -> Any:
    """A student of this factory as its distill stage publishes it; returns its model."""
    model = tiny_bert(labels, seed=5, **FIELDS)
    save_tiny(model, folder)
    return model


def test_other_labels_leave_the_encoder_and_pooler_and_draw_a_classifier(
    teacher: TorchClassifier,
    dataset: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As many labels as the data has, so that their classifier would fit by its shape."""
    other = distilled(tmp_path, ("entailment", "neutral", "contradiction"))
    model = start(teacher, dataset, tmp_path).model
    state = {f"bert.{name}": tensor for name, tensor in other.bert.state_dict().items()}
    assert "bert.pooler.dense.weight" in state
    assert has_encoder(StudentStart(model, nn.ModuleList()), state)
    assert not torch.isclose(model.classifier.weight, other.classifier.weight).any()
    assert torch.equal(model.classifier.bias, torch.zeros(3))
    assert model.config.id2label == dict(enumerate(LABELS))
    told = capsys.readouterr().err
    assert (
        "new classifier, the checkpoint's labels are 'entailment', 'neutral', 'contradiction'"
        in told
    )
    again = start(teacher, dataset, tmp_path).model
    assert torch.equal(again.classifier.weight, model.classifier.weight)
    third = start(teacher, dataset, tmp_path, seed=2).model
    assert not torch.equal(third.classifier.weight, model.classifier.weight)


def test_the_same_labels_keep_the_classifier_by_name(
    teacher: TorchClassifier,
    dataset: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = distilled(tmp_path, ("glad", "angry", "calm"))
    model = start(teacher, dataset, tmp_path).model
    assert LABELS == ("angry", "calm", "glad")
    for part in ("weight", "bias"):
        new, old = getattr(model.classifier, part), getattr(other.classifier, part)
        assert torch.equal(new, torch.stack([old[1], old[2], old[0]]))
    assert "trained classifier kept, its labels are the data's" in capsys.readouterr().err


def test_more_than_ten_labels_are_read_by_number(tmp_path: Path) -> None:
    """config.json writes the numbers as text, where 10 stands before 2."""
    from factory.distill.student_checkpoint import labels_of

    names = [f"label {number}" for number in range(12)]
    distilled(tmp_path, tuple(names))
    config = json.loads((tmp_path / "config.json").read_text())
    shuffled = dict(sorted(config["id2label"].items()))
    assert list(shuffled)[:3] == ["0", "1", "10"]
    assert labels_of({"id2label": shuffled}) == names
    assert labels_of({}) is None


def test_labels_that_are_not_named_say_nothing(
    teacher: TorchClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    other = distilled(tmp_path, LABELS)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["id2label"], config["label2id"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = start(teacher, dataset, tmp_path).model
    assert not torch.isclose(model.classifier.weight, other.classifier.weight).any()


# by name


PROGRAM = """
import sys
from pathlib import Path
from safetensors.torch import load_file, save_file
from helpers.tiny_models import tiny_bert, tiny_classifier
from factory.distill.student import start_student
from factory.models.encoding import encode_inputs
from factory.models.source import find_model
from factory.recipe.recipe import StudentSettings

name = "huawei-noah/TinyBERT_General_4L_312D"
source = find_model(name, Path("/"), "student.start", revision="v2")
assert source.location == name
teacher = tiny_classifier(tiny_bert())
settings = StudentSettings(layers=2, hidden=16, heads=4, intermediate=32, start=name)
rows = encode_inputs(teacher.tokenizer, ["the lamp is late"] * 4, teacher.max_length)
begun = start_student(settings, source, teacher, (2, 3), rows, 1)
tensors = {f"fit_denses.{n}.{k}": p for n, m in enumerate(begun.projections)
           for k, p in m.named_parameters()}
tensors |= {f"bert.{n}": t for n, t in begun.model.bert.named_parameters()}
save_file({n: t.detach().clone() for n, t in tensors.items()}, sys.argv[1])
"""


def test_a_hub_name_is_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache as the hub's client leaves it after a download; the network is off."""
    state = reference_state()
    repository = tmp_path / "hub" / "models--huawei-noah--TinyBERT_General_4L_312D"
    commit = "34707a33cd59a94ecde241ac209bf35103691b43"
    write_reference(repository / "snapshots" / commit, state)
    (repository / "refs").mkdir()
    (repository / "refs" / "v2").write_text(commit)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = [str(ROOT), str(ROOT / "tests")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    python(PROGRAM, tmp_path / "begun.safetensors")
    begun = load_file(tmp_path / "begun.safetensors")
    for name in (f"fit_denses.{layer}.{part}" for layer in range(3) for part in ("weight", "bias")):
        assert torch.equal(begun[name], state[name])
    assert all(torch.equal(t, state[n]) for n, t in begun.items() if n.startswith("bert."))
