"""Reading a recipe from TOML and overrides, and its error messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.minimal_recipe import recipe_tree
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.errors import EXIT_USAGE, RecipeError
from factory.recipe.file import known_keys, load_recipe, nearest_key, parse_recipe, recipe_schema
from factory.recipe.recipe import Recipe

MINIMAL = """\
name = "tiny"
[data]
train = "train.tsv"
dev = "dev.tsv"
[teacher]
model = "org/teacher"
[gate]
min_value = 0.5
"""
KNOWN = sorted(known_keys())
LEAVES = [key for key in KNOWN if not any(other.startswith(f"{key}.") for other in KNOWN)]


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """A minimal recipe on disk."""
    path = tmp_path / "tiny.toml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


def refused(path: Path, *overrides: str) -> RecipeError:
    """The error of loading a recipe."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return caught.value


def test_a_file_becomes_a_recipe(recipe_file: Path) -> None:
    assert load_recipe(recipe_file) == parse_recipe(recipe_tree())


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("nam", "name"),
        ("distil", "distill"),
        ("data.trian", "data.train"),
        ("data.max_lenght", "data.max_length"),
        ("teacher.learning_rte", "teacher.learning_rate"),
        ("distill.predicton", "distill.prediction"),
        ("distill.layermap", "distill.layer_map"),
        ("distill.prediction.temprature", "distill.prediction.temperature"),
        ("distill.intermediate.learningrate", "distill.intermediate.learning_rate"),
        ("gate.min_retension", "gate.min_retention"),
        ("quantize.form", "quantize.forms"),
        # the right name in the wrong section
        ("temperature", "distill.prediction.temperature"),
        ("distill.temperature", "distill.prediction.temperature"),
        ("student.temprature", "distill.prediction.temperature"),
        ("train", "data.train"),
        ("teacher.min_retention", "gate.min_retention"),
        ("distill.epochs", "distill.intermediate.epochs"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(path: str, nearest: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe_tree({path: 1}))
    assert f"{path}: unknown key; did you mean {nearest}?" in caught.value.problems


def keys_of(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """All dotted keys of a stored recipe."""
    for name, value in tree.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{name}.")


def test_the_known_keys_are_those_of_a_recipe_with_every_section() -> None:
    sections = {"general.corpus": "corpus.txt", "augment.mode": "corrected", "prune.neurons": 8}
    recipe = parse_recipe(recipe_tree(sections))
    # a shape is stored as its four numbers
    assert sorted({*keys_of(recipe.model_dump()), "student.shape"}) == KNOWN


def test_every_key_is_found_from_a_misspelling() -> None:
    assert [nearest_key(key + key[-1]) for key in LEAVES] == LEAVES


@pytest.mark.parametrize("path", ["zzz", "distill.prediction.zzz"])
def test_a_key_unlike_all_others_has_no_suggestion(path: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe_tree({path: 1}))
    assert caught.value.problems == (f"{path}: unknown key",)


def test_all_problems_are_reported_at_once(recipe_file: Path) -> None:
    text = MINIMAL.replace('train = "train.tsv"', "train = 3\nmax_lenght = 64")
    text = text.replace('model = "org/teacher"', "")
    text += "[student]\nhidden = 313\n[distill.prediction]\ntemprature = 2.0\n"
    recipe_file.write_text(text, encoding="utf-8")
    error = refused(recipe_file)
    assert set(error.problems) == {
        "data.train: Input should be a valid string (given: 3)",
        "data.max_lenght: unknown key; did you mean data.max_length?",
        "teacher.model: required and missing",
        "student: hidden 313 is not a multiple of heads 12",
        "distill.prediction.temprature: unknown key; did you mean distill.prediction.temperature?",
    }
    assert error.headline == str(recipe_file)
    assert error.exit_code == EXIT_USAGE == 2
    lines = str(error).splitlines()
    assert lines[0] == f"{recipe_file}:"
    assert lines[1:] == [f"  - {problem}" for problem in error.problems]


@pytest.mark.parametrize("section", ["name", "data", "teacher"])
def test_a_missing_part_is_named(section: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe_tree({section: ...}))
    assert caught.value.problems == (f"{section}: required and missing",)


def test_a_missing_file_suggests_a_similar_one(recipe_file: Path) -> None:
    (problem,) = refused(recipe_file.with_name("tinny.toml")).problems
    assert problem == "no such file; did you mean tiny.toml?"


def test_a_missing_file_unlike_all_others_names_init(recipe_file: Path) -> None:
    for path in (recipe_file.with_name("qqqqqqqq"), recipe_file.parent / "nowhere" / "tiny.toml"):
        (problem,) = refused(path).problems
        assert problem == "no such file; `factory init` writes one"


def test_bad_toml_is_reported_with_its_line(recipe_file: Path) -> None:
    recipe_file.write_text('name = "tiny"\n[data]\ntrain = \n', encoding="utf-8")
    (problem,) = refused(recipe_file).problems
    assert problem.startswith("not valid TOML: ")
    assert "line 3" in problem


def test_a_binary_file_is_reported(recipe_file: Path) -> None:
    recipe_file.write_bytes(b"name = '\xff\xfe'")
    assert "save it as UTF-8" in refused(recipe_file).problems[0]
    assert refused(recipe_file.parent).problems == ("is a folder; give a recipe file",)


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("distill.prediction.temperature=2.0", "distill.prediction.temperature", 2.0),
        ("teacher.fine_tune=false", "teacher.fine_tune", False),
        ("student.layers=6", "student.layers", 6),
        ("teacher.learning_rate=1e-4", "teacher.learning_rate", 0.0001),
        ('data.labels=["no", "yes"]', "data.labels", ["no", "yes"]),
        ("distill.layer_map=[1, 2, 3, 4]", "distill.layer_map", [1, 2, 3, 4]),
        ('data.train="other.tsv"', "data.train", "other.tsv"),
        ("data.train=other.tsv", "data.train", "other.tsv"),
        ("data.train=C:\\data\\other.tsv", "data.train", "C:\\data\\other.tsv"),
        ("data.train=/tmp/a=b.tsv", "data.train", "/tmp/a=b.tsv"),
        ("teacher.model=package:some_name", "teacher.model", "package:some_name"),
        ("name=other", "name", "other"),
        ('data.train="half', "data.train", '"half'),
        (" student . start = random ", "student.start", "random"),
        ("gate={min_value = 0.9}", "gate.min_value", 0.9),
        ("distill.prediction={temperature = 4.0}", "distill.prediction.temperature", 4.0),
    ],
)
def test_an_override_sets_one_value(
    recipe_file: Path, override: str, path: str, expected: Any
) -> None:
    found: Any = load_recipe(recipe_file, [override])
    for part in path.split("."):
        found = getattr(found, part)
    assert found == expected
    assert type(found) is type(expected)


def test_an_override_wins_over_the_file_and_the_last_one_over_the_first(recipe_file: Path) -> None:
    assert load_recipe(recipe_file).gate.min_value == 0.5
    overridden = load_recipe(recipe_file, ["gate.min_value=0.6", "gate.min_value=0.7"])
    assert overridden.gate.min_value == 0.7
    assert overridden.teacher == load_recipe(recipe_file).teacher


@pytest.mark.parametrize("override", ["gate.min_value", "=3", ".gate=3", "gate..min_value=3", ""])
def test_a_malformed_override(recipe_file: Path, override: str) -> None:
    error = refused(recipe_file, override)
    assert error.headline == f"--set {override}"
    assert error.problems == ("expected KEY.PATH=VALUE",)


def test_an_override_below_a_value(recipe_file: Path) -> None:
    assert refused(recipe_file, "name.first=x").problems == ("name is a value, not a table",)


def test_the_schema_is_json_and_lists_every_key() -> None:
    schema = json.loads(json.dumps(recipe_schema()))
    assert set(_schema_keys(schema, schema)) == set(KNOWN)
    assert schema["additionalProperties"] is False
    assert all(part["additionalProperties"] is False for part in schema["$defs"].values())
    assert set(schema["required"]) == {"name", "data", "teacher"}


def _schema_keys(node: dict[str, Any], root: dict[str, Any], prefix: str = "") -> list[str]:
    node = next((part for part in node.get("anyOf", []) if "$ref" in part), node)
    if "$ref" in node:
        node = root["$defs"][node["$ref"].rpartition("/")[2]]
    keys = []
    for name, child in node.get("properties", {}).items():
        keys += [prefix + name, *_schema_keys(child, root, f"{prefix}{name}.")]
    return keys


def _floats(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, exclude_min=True)


# settings that are valid on their own
OVERRIDES: dict[str, st.SearchStrategy[Any]] = {
    "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    "data.train": st.text(min_size=1),
    "data.label": st.text(min_size=1),
    "data.text": st.text(min_size=1) | st.lists(st.text(), min_size=2, max_size=2),
    "data.labels": st.lists(st.text(), min_size=2, max_size=5),
    "data.max_length": st.integers(8, 512),
    "data.allow_duplicates": st.booleans(),
    "teacher.model": st.text(min_size=1),
    "teacher.epochs": _floats(0.0, 100.0),
    "teacher.seed": st.integers(-(2**63), 2**63 - 1),
    "student.layers": st.integers(1, 48),
    "distill.layer_map": st.sampled_from(["uniform", "top", "bottom"]),
    "distill.intermediate.epochs": st.floats(0.0, 100.0),
    "distill.prediction.temperature": _floats(0.0, 64.0),
    "gate.min_value": st.floats(0.0, 1.0),
    "gate.max_size_bytes": st.integers(1, 10**12),
    "export.atol": _floats(0.0, 1.0),
    "quantize.forms": st.lists(st.sampled_from(["fp32", "int8-static"]), min_size=1, max_size=3),
}


@pytest.fixture(scope="module")
def shared_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minimal recipe that no test changes."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.toml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


@settings(max_examples=25, deadline=None)
@given(values=st.fixed_dictionaries({}, optional=OVERRIDES))
def test_overrides_arrive_exactly_and_survive_a_dump(
    shared_file: Path, values: dict[str, Any]
) -> None:
    # JSON scalars and lists are TOML, except that TOML also escapes this character
    overrides = [
        f"{key}={json.dumps(value, ensure_ascii=True)}".replace("\x7f", "\\u007f")
        for key, value in values.items()
        if not _beyond_two_bytes(value)
    ]
    recipe = load_recipe(shared_file, overrides)
    dump = recipe.model_dump(mode="json")
    for override in overrides:
        key = override.partition("=")[0]
        found: Any = dump
        for part in key.split("."):
            found = found[part]
        assert found == values[key]
    assert parse_recipe(json.loads(json.dumps(dump))) == recipe
    assert parse_recipe(recipe.model_dump()) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert load_recipe(shared_file, overrides[::-1]) == recipe
    assert recipe.model_dump(mode="json") == dump


def _beyond_two_bytes(value: Any) -> bool:
    """Whether JSON writes a character as two escapes, which TOML does not allow."""
    texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return any(ord(character) > 0xFFFF for text in texts for character in str(text))


@settings(max_examples=40, deadline=None)
@given(key=st.sampled_from(LEAVES), text=st.text(max_size=30))
def test_any_override_text_is_a_recipe_or_a_recipe_error(
    shared_file: Path, key: str, text: str
) -> None:
    try:
        recipe = load_recipe(shared_file, [f"{key}={text}"])
    except RecipeError:
        return
    assert parse_recipe(recipe.model_dump()) == recipe


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=60))
def test_any_file_is_a_recipe_or_a_recipe_error(shared_file: Path, content: bytes) -> None:
    path = shared_file.with_name("any.toml")
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.headline == str(path)
