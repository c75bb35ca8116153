"""Fingerprints of the stages: what each setting re-makes, and the plan's words for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_line import line_recipe

from factory import graph as graph_module
from factory import shipping_steps
from factory.errors import DataError, ProblemsError, RecipeError
from factory.general_steps import find_general_steps
from factory.graph import Graph, find_start, make_graph, plan
from factory.store import Step, Store

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


def graph_of(base: Path, changes: Mapping[str, Any] | None = None) -> Graph:
    return make_graph(line_recipe({"distill.baseline": "random", **(changes or {})}), base)


def fingerprints(graph: Graph) -> dict[str, str]:
    return {step.stage: step.fingerprint for step in graph.steps()}


def changed(old: Graph, new: Graph) -> set[str]:
    """The stages that are in both graphs under another fingerprint."""
    before, after = fingerprints(old), fingerprints(new)
    return {stage for stage in before if stage in after and before[stage] != after[stage]}


def test_the_same_recipe_gives_the_same_graph(base: Path) -> None:
    assert fingerprints(graph_of(base)) == fingerprints(graph_of(base))
    assert [step.stage for step in graph_of(base).steps()] == list(ALL)
    assert len(set(fingerprints(graph_of(base)).values())) == len(ALL)


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"name": "other"}, {"bundle"}),
        ({"data.seed": 1}, set(ALL)),
        ({"data.label": "queue"}, set(ALL)),
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
    assert changed(graph_of(base), graph_of(base, changes)) == stages


def append(name: str) -> Callable[[Path], None]:
    def change(base: Path) -> None:
        with (base / name).open("a", encoding="utf-8") as handle:
            handle.write(" ")

    return change


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        (append("train.tsv"), set(ALL)),
        (append("dev.tsv"), set(ALL)),
        (append("test.tsv"), set(ALL)),
        (append("teacher/config.json"), FROM_TEACHER),
    ],
)
def test_content_decides(base: Path, change: Callable[[Path], None], stages: set[str]) -> None:
    before = graph_of(base)
    change(base)
    assert changed(before, graph_of(base)) == stages


def test_names_and_places_do_not(base: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = graph_of(base)
    (base / "train.tsv").rename(base / "renamed.tsv")
    (base / "teacher").rename(base / "elsewhere")
    renamed = graph_of(base, {"data.train": "renamed.tsv", "teacher.model": "./elsewhere"})
    assert changed(before, renamed) == set()
    moved = base.rename(tmp_path_factory.mktemp("other") / "place")
    again = graph_of(moved, {"data.train": "renamed.tsv", "teacher.model": "elsewhere"})
    assert changed(before, again) == set()


def test_a_changed_start_checkpoint_remakes_the_student(base: Path) -> None:
    before = graph_of(base, {"student.start": "start"})
    append("start/config.json")(base)
    assert changed(before, graph_of(base, {"student.start": "start"})) == FROM_STUDENT


def test_stages_a_recipe_does_not_need_are_absent(base: Path) -> None:
    full = graph_of(base)
    lean = graph_of(base, {"distill.baseline": "off", "quantize.forms": ["fp32"]})
    assert (lean.baseline, lean.shipping.quantize) == (None, None)
    assert [step.stage for step in lean.steps()] == [
        stage for stage in ALL if stage not in ("baseline", "quantize")
    ]
    # without the baseline there is less to evaluate and ship; the student is the same
    assert changed(full, lean) == {"evaluate", "bundle"}


def test_a_raised_stage_version_remakes_it(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = graph_of(base, {"data.unlabelled": "more.txt"})
    for stage, name in ((stage, f"{stage.upper()}_VERSION") for stage in STAGES):
        with monkeypatch.context() as patch:
            module = graph_module if hasattr(graph_module, name) else shipping_steps
            patch.setattr(module, name, getattr(module, name) + 1)
            after = changed(before, graph_of(base, {"data.unlabelled": "more.txt"}))
        assert stage in after
        assert after <= set(STAGES[STAGES.index(stage) :])


# unlabelled text


def test_unlabelled_text_is_a_stage_of_its_own(base: Path) -> None:
    plain, more = graph_of(base), graph_of(base, {"data.unlabelled": "more.txt"})
    assert plain.unlabelled is None
    assert "unlabelled" not in plain.distill.inputs
    assert [step.stage for step in more.steps()] == list(STAGES)
    assert more.unlabelled is not None
    assert more.unlabelled.inputs == {"data": more.data.fingerprint}
    assert more.distill.inputs["unlabelled"] == more.unlabelled.fingerprint


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
    before = graph_of(base, {"data.unlabelled": "more.txt"})
    assert changed(before, graph_of(base, {"data.unlabelled": "more.txt", **changes})) == stages


def test_the_content_of_unlabelled_text_remakes_the_student(base: Path) -> None:
    before = graph_of(base, {"data.unlabelled": "more.txt"})
    append("more.txt")(base)
    after = graph_of(base, {"data.unlabelled": "more.txt"})
    assert changed(before, after) == FROM_UNLABELLED


def test_settings_left_at_their_default_do_not_show_in_the_teacher(base: Path) -> None:
    """Teachers made before these settings existed stay where they are."""
    graph = graph_of(base, {"data.unlabelled": "more.txt", "data.unlabelled_limit": 5})
    assert "class_weights" not in graph.teacher.settings["teacher"]
    assert not [key for key in graph.data.settings["data"] if key.startswith("unlabelled")]


# what is not there


def test_a_missing_model_and_missing_files_are_told_together(base: Path) -> None:
    (base / "train.tsv").unlink()
    changes = {"teacher.model": "./nowhere", "student.start": "./neither"}
    with pytest.raises(RecipeError) as caught:
        graph_of(base, {**changes, "data.unlabelled": "absent.txt"})
    message = str(caught.value)
    assert len(caught.value.problems) == 4
    for part in ("teacher.model", "nowhere", "student.start", "neither", "train.tsv", "absent.txt"):
        assert part in message


def test_one_thing_missing_keeps_its_own_kind_of_error(base: Path) -> None:
    with pytest.raises(RecipeError, match=r"teacher\.model"):
        graph_of(base, {"teacher.model": "./nowhere"})
    (base / "dev.tsv").unlink()
    with pytest.raises(DataError, match=r"no such file dev\.tsv") as caught:
        graph_of(base)
    assert isinstance(caught.value, ProblemsError)


# general distillation

GENERAL = {"student.start": "general", "general.corpus": "corpus.txt"}


@pytest.fixture
def with_corpus(base: Path) -> Path:
    (base / "corpus.txt").write_text("one\ntwo\n", encoding="utf-8")
    return base


def test_a_general_start_puts_two_stages_before_the_student(with_corpus: Path) -> None:
    graph = graph_of(with_corpus, GENERAL)
    stages = [step.stage for step in graph.steps()]
    assert stages == [*ALL[:2], "corpus", "general", *ALL[2:]]
    assert graph.general is not None
    assert graph.distill.inputs["general"] == graph.general.general.fingerprint
    assert changed(graph_of(with_corpus), graph) == FROM_STUDENT
    unused = graph_of(with_corpus, {"general.corpus": "corpus.txt"})
    assert unused.general is None
    assert changed(graph_of(with_corpus), unused) == set()


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
    before, after = graph_of(with_corpus, GENERAL), graph_of(with_corpus, {**GENERAL, **changes})
    assert changed(before, after) == stages


def test_content_of_corpus_and_teacher_remake_the_general_student(with_corpus: Path) -> None:
    before = graph_of(with_corpus, GENERAL)
    append("corpus.txt")(with_corpus)
    after = graph_of(with_corpus, GENERAL)
    assert changed(before, after) == {"corpus", *FROM_GENERAL}
    append("teacher/config.json")(with_corpus)
    assert changed(after, graph_of(with_corpus, GENERAL)) == {"corpus", "general", *FROM_TEACHER}


def test_general_alone_has_the_same_stages_and_needs_no_data(with_corpus: Path) -> None:
    graph = graph_of(with_corpus, GENERAL)
    (with_corpus / "train.tsv").unlink()
    for start in ("general", "teacher"):
        recipe = line_recipe({**GENERAL, "student.start": start})
        steps, teacher = find_general_steps(recipe, with_corpus)
        assert steps == graph.general
        assert teacher == graph.teacher_source
    with pytest.raises(RecipeError, match=r"no section \[general\]"):
        find_general_steps(line_recipe(), with_corpus)


def test_a_missing_corpus_is_told_with_the_rest(base: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        graph_of(base, {**GENERAL, "teacher.model": "./nowhere"})
    assert len(caught.value.problems) == 2
    assert "general.corpus: no such file corpus.txt" in str(caught.value)


def test_find_start(base: Path) -> None:
    for start in ("teacher", "random"):
        assert find_start(line_recipe({"student.start": start}), base) is None
    assert find_start(line_recipe(GENERAL), base) is None
    hub = line_recipe({"student.start": "org/general", "student.revision": "v2"})
    source = find_start(hub, base)
    assert source is not None
    assert (source.location, source.revision) == ("org/general", "v2")
    assert source.identity == "hub:org/general@v2"


# plan


def publish(store: Store, step: Step, name: str = "tiny-line") -> None:
    """An artifact without files."""
    store.build(step, name, lambda directory: {})


def planned(base: Path, changes: Mapping[str, Any] | None = None) -> dict[str, tuple[str, str]]:
    recipe = line_recipe({"distill.baseline": "random", **(changes or {})})
    steps = plan(make_graph(recipe, base), Store(base / "runs"), recipe.name)
    return {entry.step.stage: (entry.status, entry.reason) for entry in steps}


def test_plan_of_an_empty_store_touches_nothing(base: Path) -> None:
    assert planned(base) == dict.fromkeys(ALL, ("run", "never made"))
    assert not (base / "runs").exists()


def test_plan_of_a_finished_and_an_interrupted_run(base: Path) -> None:
    store, graph = Store(base / "runs"), graph_of(base)
    for step in (graph.data, graph.teacher):
        publish(store, step)
    store.partial(graph.distill).mkdir()
    found = planned(base)
    assert found["data"] == found["teacher"] == ("cached", "nothing changed")
    assert found["distill"] == ("resume", "an interrupted run left its work")
    assert found["evaluate"] == ("run", "never made")


def publish_all(base: Path) -> None:
    store, graph = Store(base / "runs"), graph_of(base)
    for step in graph.steps():
        publish(store, step)


def test_plan_names_every_changed_setting_and_input(base: Path) -> None:
    publish_all(base)
    found = planned(base, {"distill.prediction.temperature": 2.0, "distill.seed": 7})
    why = ("run", "distill.prediction.temperature 1.0 -> 2.0; distill.seed 42 -> 7")
    assert found["distill"] == why
    assert found["baseline"] == why
    assert found["export"] == ("run", "new student")
    assert found["teacher"] == ("cached", "nothing changed")


def test_plan_names_changed_data(base: Path) -> None:
    publish_all(base)
    old = graph_of(base).data.settings["source"]["files"]["dev"]
    append("dev.tsv")(base)
    new = graph_of(base).data.settings["source"]["files"]["dev"]
    assert old != new
    found = planned(base)
    assert found["data"] == ("run", f"source.files.dev {old} -> {new}")
    assert found["teacher"] == ("run", "new data")


def test_plan_tells_of_changed_code(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_all(base)
    monkeypatch.setattr(shipping_steps, "EXPORT_VERSION", 99)
    assert planned(base)["export"] == ("run", "the stage's code changed")


def test_plan_tells_of_a_removed_artifact_when_another_of_the_stage_is_like_it(base: Path) -> None:
    publish_all(base)
    store, graph = Store(base / "runs"), graph_of(base)
    record = store.directory(graph.shipping.export) / "artifact.json"
    twin = base / "runs" / "export-000000000000"
    twin.mkdir()
    record.rename(twin / "artifact.json")
    store.directory(graph.shipping.export).rmdir()
    assert planned(base)["export"] == ("run", "its artifact was removed")


def test_plan_compares_with_the_same_recipes_last_artifact(base: Path) -> None:
    store = Store(base / "runs")
    publish(store, graph_of(base, {"distill.seed": 1}).distill, "another")
    assert planned(base)["distill"] == ("run", "never made")
    publish(store, graph_of(base, {"distill.seed": 2}).distill)
    assert planned(base)["distill"] == ("run", "distill.seed 2 -> 42")


def test_settings_of_every_stage_are_json(base: Path) -> None:
    for step in graph_of(base, {"student.start": "start"}).steps():
        assert json.loads(json.dumps(step.settings)) == step.settings


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
    before = graph_of(base, MULTILABEL)
    assert changed(before, graph_of(base, {**MULTILABEL, **changes})) == stages


def test_settings_of_multilabel_are_no_part_of_the_other_tasks(base: Path) -> None:
    """What was made before they existed is still what such a recipe makes."""
    graph = graph_of(base)
    assert "label_separator" not in graph.data.settings["data"]
    assert set(graph.evaluate.settings) == {"data"}
    assert set(graph.shipping.export.inputs) == {"data", "student"}


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
        ({"teacher.epochs": 9.0, "augment.filter": "teacher"}, FROM_TEACHER | {"augment"}),
        ({"mlm.epochs": 1.0}, set()),
        ({"augment": ...}, FROM_STUDENT),
    ],
)
def test_what_remakes_the_variants(
    proposers: Path, changes: dict[str, Any], stages: set[str]
) -> None:
    (proposers / "start" / "config.json").write_text('{"other": 1}', encoding="utf-8")
    before = graph_of(proposers, AUGMENT)
    assert changed(before, graph_of(proposers, {**AUGMENT, **changes})) == stages


def test_the_content_of_word_vectors_remakes_the_variants(proposers: Path) -> None:
    before = graph_of(proposers, AUGMENT)
    append("words.txt")(proposers)
    assert changed(before, graph_of(proposers, AUGMENT)) == FROM_VARIANTS


def test_a_model_trained_here_is_a_stage_before_the_variants(proposers: Path) -> None:
    trained = {"augment.mlm": "trained"}
    graph = graph_of(proposers, trained)
    names = [step.stage for step in graph.steps()]
    assert names[:4] == ["data", "teacher", "mlm", "augment"]
    more = {**trained, "data.unlabelled": "more.txt"}
    assert changed(graph, graph_of(proposers, more)) == FROM_VARIANTS | {"mlm"}
    faster = {**trained, "mlm.epochs": 1.0}
    assert changed(graph, graph_of(proposers, faster)) == FROM_VARIANTS | {"mlm"}
    assert graph.augmentation is not None
    assert graph.augmentation.sources.mlm is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment.vectors": "word.txt"}, "no such file word.txt .* similar there: words.txt"),
        ({"augment.mlm": "./none"}, "augment.mlm"),
        ({"augment.mlm": "trained", "mlm.model": "./none"}, "mlm.model"),
    ],
)
def test_proposers_that_are_not_there(
    proposers: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        graph_of(proposers, changes)
