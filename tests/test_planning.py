"""The plan: which stages a recipe needs, what each setting remakes, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.pipeline_run import line_recipe

from factory.errors import DataError, ProblemsError, RecipeError
from factory.planning import RunPlan, make_plan, stage_statuses
from factory.stages import STAGES as ALL_STAGES
from factory.store import ArtifactKey, Store

STAGES = ("data", "unlabelled", "teacher", "distill", "baseline", "evaluate", "export", "quantize",
          "bundle")  # fmt: skip
ALL = ("data", "teacher", "distill", "baseline", "evaluate", "export", "quantize", "bundle")
FROM_TEACHER = set(ALL) - {"data"}
FROM_STUDENT = FROM_TEACHER - {"teacher"}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A recipe's folder with files to hash; nothing here is ever loaded."""
    (tmp_path / "more.txt").write_text("more\n", encoding="utf-8")
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.tsv").write_text(f"text\tlabel\n{name}\ta\n", encoding="utf-8")
    for name in ("teacher", "start"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}", encoding="utf-8")
    return tmp_path


def plan_of(base: Path, changes: Mapping[str, Any] | None = None) -> RunPlan:
    return make_plan(line_recipe({"distill.baseline": "random", **(changes or {})}), base)


def fingerprints(plan: RunPlan) -> dict[str, str]:
    return {name: key.fingerprint for name, key in plan.keys.items()}


def changed(old: RunPlan, new: RunPlan) -> set[str]:
    """The stages that are in both plans under another fingerprint."""
    before, after = fingerprints(old), fingerprints(new)
    return {stage for stage in before if stage in after and before[stage] != after[stage]}


def test_the_same_recipe_gives_the_same_plan(base: Path) -> None:
    assert fingerprints(plan_of(base)) == fingerprints(plan_of(base))
    assert list(plan_of(base).keys) == list(ALL)
    assert len(set(fingerprints(plan_of(base)).values())) == len(ALL)


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"name": "other"}, {"bundle"}),
        ({"data.seed": 1}, set(ALL)),
        ({"data.max_length": 20}, FROM_TEACHER),
        ({"teacher.epochs": 4.0}, FROM_TEACHER),
        ({"teacher.fine_tune": False}, FROM_TEACHER),
        ({"teacher.min_margin": 0.1}, {"bundle"}),
        ({"teacher.class_weights": "balanced"}, FROM_TEACHER),
        ({"student.layers": 3}, FROM_STUDENT),
        ({"student.start": "random"}, FROM_STUDENT),
        ({"student.start": "start"}, FROM_STUDENT),
        ({"distill.seed": 1}, FROM_STUDENT),
        ({"distill.layer_map": [1, 3]}, FROM_STUDENT),
        ({"distill.prediction.temperature": 2.0}, FROM_STUDENT),
        ({"distill.baseline": "same"}, {"baseline", "evaluate", "bundle"}),
        ({"gate.metric": "macro_f1"}, {"bundle"}),
        ({"gate.positive_label": "spam"}, {"evaluate", "bundle"}),
        ({"data.unlabelled": "more.txt"}, FROM_STUDENT),
        ({"gate.min_value": 0.9}, {"bundle"}),
        ({"gate.split": "test"}, {"bundle"}),
        ({"export.atol": 1e-3}, {"export", "quantize", "bundle"}),
        ({"export.opset": 18}, {"export", "quantize", "bundle"}),
        ({"quantize.forms": ["int8-static", "fp32"]}, {"bundle"}),
        ({"quantize.forms": ["int8-static", "int8-rows"]}, {"quantize", "bundle"}),
        ({"quantize.forms": "auto"}, {"quantize", "bundle"}),
        ({"quantize.calibration_rows": 10}, {"quantize", "bundle"}),
        ({"quantize.smoothing": 0.5}, {"quantize", "bundle"}),
        ({"target.hardware": "arm64"}, {"quantize", "bundle"}),  # 8 bits instead of 7
        ({"target.hardware": "web"}, {"bundle"}),
        ({"student.shape": "4x312"}, set()),
        ({"target.tokens": 32}, {"bundle"}),
        ({"gate.min_agreement": 0.9}, {"bundle"}),
        ({"export.first_token": False}, {"export", "quantize", "bundle"}),
        ({"export.general_pieces": 100}, {"export", "quantize", "bundle"}),
    ],
)
def test_a_setting_remakes_what_reads_it_and_all_behind(
    base: Path, changes: dict[str, Any], stages: set[str]
) -> None:
    assert changed(plan_of(base), plan_of(base, changes)) == stages


def append(file: Path) -> None:
    with file.open("a", encoding="utf-8") as handle:
        handle.write(" ")


@pytest.mark.parametrize(
    ("changes", "file", "stages"),
    [
        ({}, "train.tsv", set(ALL)),
        ({}, "dev.tsv", set(ALL)),
        ({}, "test.tsv", set(ALL)),
        ({}, "teacher/config.json", FROM_TEACHER),
        ({"student.start": "start"}, "start/config.json", FROM_STUDENT),
        ({"data.unlabelled": "more.txt"}, "more.txt", FROM_STUDENT | {"unlabelled"}),
    ],
)
def test_changed_content_remakes_what_reads_it(
    base: Path, changes: dict[str, Any], file: str, stages: set[str]
) -> None:
    before = plan_of(base, changes)
    append(base / file)
    assert changed(before, plan_of(base, changes)) == stages


def test_names_and_places_remake_nothing(
    base: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = plan_of(base)
    (base / "train.tsv").rename(base / "renamed.tsv")
    (base / "teacher").rename(base / "elsewhere")
    renamed = plan_of(base, {"data.train": "renamed.tsv", "teacher.model": "./elsewhere"})
    assert changed(before, renamed) == set()
    moved = base.rename(tmp_path_factory.mktemp("other") / "place")
    again = plan_of(moved, {"data.train": "renamed.tsv", "teacher.model": "elsewhere"})
    assert changed(before, again) == set()


def test_stages_a_recipe_does_not_need_are_absent(base: Path) -> None:
    full = plan_of(base)
    lean = plan_of(base, {"distill.baseline": "off", "quantize.forms": ["fp32"]})
    assert list(lean.keys) == [stage for stage in ALL if stage not in ("baseline", "quantize")]
    # without the baseline there is less to evaluate and ship; the student is the same
    assert changed(full, lean) == {"evaluate", "bundle"}


@pytest.mark.parametrize("name", STAGES)
def test_a_raised_stage_version_remakes_it(base: Path, name: str) -> None:
    recipe = line_recipe({"distill.baseline": "random", "data.unlabelled": "more.txt"})
    raised = [replace(stage, version=stage.version + (stage.name == name)) for stage in ALL_STAGES]
    after = changed(make_plan(recipe, base), make_plan(recipe, base, stages=raised))
    assert name in after
    assert after <= set(STAGES[STAGES.index(name) :])


# unlabelled text


def test_unlabelled_text_is_a_stage_of_its_own(base: Path) -> None:
    plain, more = plan_of(base), plan_of(base, {"data.unlabelled": "more.txt"})
    assert "unlabelled" not in plain.keys
    assert "unlabelled" not in plain.keys["distill"].inputs
    assert list(more.keys) == list(STAGES)
    assert more.keys["unlabelled"].inputs == {"data": more.keys["data"].fingerprint}
    assert more.keys["distill"].inputs["unlabelled"] == more.keys["unlabelled"].fingerprint


FROM_UNLABELLED = FROM_STUDENT | {"unlabelled"}


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"data.unlabelled_limit": 10}, FROM_UNLABELLED),
        ({"data.unlabelled": ["more.txt", "dev.tsv"]}, FROM_UNLABELLED),
        ({"data.unlabelled": ["more.txt"]}, set()),
        ({"data.seed": 1}, set(STAGES)),
    ],
)
def test_unlabelled_settings_leave_data_and_teacher_alone(
    base: Path, changes: dict[str, Any], stages: set[str]
) -> None:
    before = plan_of(base, {"data.unlabelled": "more.txt"})
    assert changed(before, plan_of(base, {"data.unlabelled": "more.txt", **changes})) == stages


# what is not there


def test_a_missing_model_and_missing_files_are_reported_together(base: Path) -> None:
    (base / "train.tsv").unlink()
    changes = {"teacher.model": "./nowhere", "student.start": "./neither"}
    with pytest.raises(RecipeError) as caught:
        plan_of(base, {**changes, "data.unlabelled": "absent.txt"})
    message = str(caught.value)
    assert len(caught.value.problems) == 4
    for part in ("teacher.model", "nowhere", "student.start", "neither", "train.tsv", "absent.txt"):
        assert part in message


def test_one_thing_missing_keeps_its_own_kind_of_error(base: Path) -> None:
    with pytest.raises(RecipeError, match=r"teacher\.model"):
        plan_of(base, {"teacher.model": "./nowhere"})
    (base / "dev.tsv").unlink()
    with pytest.raises(DataError, match=r"no such file dev\.tsv") as caught:
        plan_of(base)
    assert isinstance(caught.value, ProblemsError)


# general distillation

GENERAL = {"student.start": "general", "general.corpus": "corpus.txt"}


@pytest.fixture
def with_corpus(base: Path) -> Path:
    (base / "corpus.txt").write_text("one\ntwo\n", encoding="utf-8")
    return base


def test_a_general_start_puts_two_stages_before_the_student(with_corpus: Path) -> None:
    plan = plan_of(with_corpus, GENERAL)
    assert list(plan.keys) == [*ALL[:2], "corpus", "general", *ALL[2:]]
    assert plan.keys["distill"].inputs["general"] == plan.keys["general"].fingerprint
    assert changed(plan_of(with_corpus), plan) == FROM_STUDENT
    unused = plan_of(with_corpus, {"general.corpus": "corpus.txt"})
    assert "general" not in unused.keys
    assert changed(plan_of(with_corpus), unused) == set()


FROM_GENERAL = {"general", *FROM_STUDENT}


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"data.seed": 1}, set(ALL)),
        ({"data.max_length": 20}, FROM_TEACHER),
        ({"teacher.epochs": 4.0}, FROM_TEACHER),
        ({"distill.seed": 1}, FROM_STUDENT),
        ({"distill.intermediate.epochs": 1.0}, FROM_STUDENT),
        ({"gate.min_value": 0.9}, {"bundle"}),
        ({"distill.layer_map": [1, 3]}, FROM_GENERAL),
        ({"student.hidden": 16}, FROM_GENERAL),
        ({"general.epochs": 2.0}, FROM_GENERAL),
        ({"general.start": "random"}, FROM_GENERAL),
        ({"general.hidden_weight": 0.5}, FROM_GENERAL),
        ({"general.max_length": 64}, {"corpus", *FROM_GENERAL}),
        ({"general.max_tokens": 10}, {"corpus", *FROM_GENERAL}),
        ({"general.documents": "blank_lines"}, {"corpus", *FROM_GENERAL}),
    ],
)
def test_what_remakes_the_general_student(
    with_corpus: Path, changes: dict[str, Any], stages: set[str]
) -> None:
    before, after = plan_of(with_corpus, GENERAL), plan_of(with_corpus, {**GENERAL, **changes})
    assert changed(before, after) == stages


def test_content_of_corpus_and_teacher_remake_the_general_student(with_corpus: Path) -> None:
    before = plan_of(with_corpus, GENERAL)
    append(with_corpus / "corpus.txt")
    after = plan_of(with_corpus, GENERAL)
    assert changed(before, after) == {"corpus", *FROM_GENERAL}
    append(with_corpus / "teacher/config.json")
    assert changed(after, plan_of(with_corpus, GENERAL)) == {"corpus", "general", *FROM_TEACHER}


def test_general_alone_has_the_same_stages_and_needs_no_data(with_corpus: Path) -> None:
    whole = plan_of(with_corpus, GENERAL)
    (with_corpus / "train.tsv").unlink()
    for start in ("general", "teacher"):
        recipe = line_recipe({**GENERAL, "student.start": start})
        alone = make_plan(recipe, with_corpus, "general")
        assert alone.keys == {name: whole.keys[name] for name in ("corpus", "general")}
    with pytest.raises(RecipeError, match=r"no section \[general\]"):
        make_plan(line_recipe(), with_corpus, "general")


def test_a_missing_corpus_is_reported_with_the_rest(base: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        plan_of(base, {**GENERAL, "teacher.model": "./nowhere"})
    assert len(caught.value.problems) == 2
    assert "general.corpus: no such file corpus.txt" in str(caught.value)


def test_the_checkpoint_to_start_from(base: Path) -> None:
    for start in ("teacher", "random"):
        assert plan_of(base, {"student.start": start}).sources.start is None
    changes = {"student.start": "org/general", "student.revision": "v2"}
    source = plan_of(base, changes).sources.start
    assert source is not None
    assert (source.location, source.revision) == ("org/general", "v2")
    assert source.identity == "hub:org/general@v2"


# plan


def publish(store: Store, key: ArtifactKey, name: str = "tiny-line") -> None:
    """An artifact without files."""
    store.build(key, name, lambda directory: {})


def planned(base: Path, changes: Mapping[str, Any] | None = None) -> dict[str, tuple[str, str]]:
    recipe = line_recipe({"distill.baseline": "random", **(changes or {})})
    statuses = stage_statuses(make_plan(recipe, base), Store(base / "runs"))
    return {one.key.stage: (one.status, one.reason) for one in statuses}


def test_plan_of_an_empty_store_touches_nothing(base: Path) -> None:
    assert planned(base) == dict.fromkeys(ALL, ("run", "not run yet"))
    assert not (base / "runs").exists()


def test_plan_of_a_finished_and_an_interrupted_run(base: Path) -> None:
    store, keys = Store(base / "runs"), plan_of(base).keys
    publish(store, keys["data"])
    publish(store, keys["teacher"])
    store.partial(keys["distill"]).mkdir()
    found = planned(base)
    assert found["data"] == found["teacher"] == ("cached", "nothing changed")
    assert found["distill"] == ("resume", "interrupted")
    assert found["evaluate"] == ("run", "not run yet")


def publish_all(base: Path) -> None:
    for key in plan_of(base).keys.values():
        publish(Store(base / "runs"), key)


def test_plan_names_every_changed_setting_and_input(base: Path) -> None:
    publish_all(base)
    found = planned(base, {"distill.prediction.temperature": 2.0, "distill.seed": 7})
    why = ("run", "distill.prediction.temperature 1.0 -> 2.0; distill.seed 42 -> 7")
    assert found["distill"] == why
    assert found["baseline"] == why
    assert found["export"] == ("run", "new distill")
    assert found["teacher"] == ("cached", "nothing changed")


def test_plan_names_changed_data(base: Path) -> None:
    publish_all(base)
    old = plan_of(base).keys["data"].settings["source"]["files"]["dev"]["sha256"]
    append(base / "dev.tsv")
    new = plan_of(base).keys["data"].settings["source"]["files"]["dev"]["sha256"]
    assert old != new
    found = planned(base)
    assert found["data"] == ("run", f"source.files.dev.sha256 {old} -> {new}")
    assert found["teacher"] == ("run", "new data")


def test_plan_shows_changed_code(base: Path) -> None:
    key = plan_of(base).keys["export"]
    publish(Store(base / "runs"), replace(key, version=key.version + 1))
    assert planned(base)["export"] == ("run", "new version of the stage")


def test_plan_shows_a_deleted_artifact(base: Path) -> None:
    publish_all(base)
    directory = Store(base / "runs").directory(plan_of(base).keys["export"])
    record = directory / "artifact.json"
    twin = base / "runs" / "export-000000000000"
    twin.mkdir()
    record.rename(twin / "artifact.json")
    directory.rmdir()
    assert planned(base)["export"] == ("run", "its artifact was deleted")


def test_plan_compares_with_the_same_recipes_last_artifact(base: Path) -> None:
    store = Store(base / "runs")
    publish(store, plan_of(base, {"distill.seed": 1}).keys["distill"], "another")
    assert planned(base)["distill"] == ("run", "not run yet")
    publish(store, plan_of(base, {"distill.seed": 2}).keys["distill"])
    assert planned(base)["distill"] == ("run", "distill.seed 2 -> 42")


def test_settings_of_every_stage_are_json(base: Path) -> None:
    for key in plan_of(base, {"student.start": "start"}).keys.values():
        assert json.loads(json.dumps(key.settings)) == key.settings


MULTILABEL = {"data.task": "multilabel"}


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"data.label_separator": ";"}, set(ALL)),
        ({"evaluate.thresholds": 0.5}, {"evaluate", "export", "quantize", "bundle"}),
        ({"gate.metric": "macro_f1"}, {"evaluate", "export", "quantize", "bundle"}),
        ({"gate.metric": "exact_match"}, {"bundle"}),
        (
            {"gate.metric": "macro_f1", "evaluate.thresholds": 0.5},
            {"evaluate", "export", "quantize", "bundle"},
        ),
    ],
)
def test_what_settings_of_multilabel_remake(
    base: Path, changes: dict[str, Any], stages: set[str]
) -> None:
    before = plan_of(base, MULTILABEL)
    assert changed(before, plan_of(base, {**MULTILABEL, **changes})) == stages


def test_thresholds_decide_the_export_of_multilabel_models_alone(base: Path) -> None:
    assert set(plan_of(base).keys["export"].inputs) == {"data", "distill"}
    exported = plan_of(base, MULTILABEL).keys["export"]
    assert set(exported.inputs) == {"data", "distill", "evaluate"}


# augmentation


@pytest.fixture
def proposers(base: Path) -> Path:
    """A folder with a masked language model and word vectors, to be hashed only."""
    (base / "mlm").mkdir()
    (base / "mlm" / "config.json").write_text("{}", encoding="utf-8")
    (base / "words.txt").write_text("word 1 2\n", encoding="utf-8")
    return base


AUGMENT = {"augment.mlm": "mlm", "augment.vectors": "words.txt"}
FROM_VARIANTS = FROM_STUDENT | {"augment"}


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"augment.copies": 3}, FROM_VARIANTS),
        ({"augment.seed": 3}, FROM_VARIANTS),
        ({"augment.sources": ["vectors", "mlm"]}, FROM_VARIANTS),
        ({"augment.sources": ["mlm", "vectors", "embeddings"]}, set()),
        ({"augment.mlm": "start"}, FROM_VARIANTS),
        ({"teacher.epochs": 9.0}, FROM_TEACHER),
        ({"augment": ...}, FROM_STUDENT),
    ],
)
def test_what_remakes_the_variants(
    proposers: Path, changes: dict[str, Any], stages: set[str]
) -> None:
    (proposers / "start" / "config.json").write_text('{"other": 1}', encoding="utf-8")
    before = plan_of(proposers, AUGMENT)
    assert changed(before, plan_of(proposers, {**AUGMENT, **changes})) == stages


def test_the_content_of_word_vectors_remakes_the_variants(proposers: Path) -> None:
    before = plan_of(proposers, AUGMENT)
    append(proposers / "words.txt")
    assert changed(before, plan_of(proposers, AUGMENT)) == FROM_VARIANTS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment.vectors": "word.txt"}, "no such file word.txt .* similar names: words.txt"),
        ({"augment.mlm": "./none"}, "augment.mlm"),
    ],
)
def test_proposers_that_are_not_there(
    proposers: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        plan_of(proposers, changes)
