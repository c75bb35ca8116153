"""Unlabelled text: what is read, dropped, counted and stored."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from helpers.fake_hub_files import Rows, write_glue

from factory.data.dataset import Dataset, Split
from factory.data.source import unlabelled_identity
from factory.data.unlabelled import load_unlabelled, read_unlabelled, write_unlabelled
from factory.errors import DataError
from factory.recipe.data import DataSettings

SINGLE = Dataset(
    "classification",
    ("a", "b"),
    Split("train", ["seen one", "seen two"], None, [0, 1]),
    Split("dev", ["dev one", "Straße  nach Rom"], None, [0, 1]),
    Split("test", ["test one"], None, [0]),
)
PAIRS = Dataset(
    "classification",
    ("a", "b"),
    Split("train", ["left"], ["right"], [0]),
    Split("dev", ["q"], ["a"], [1]),
    None,
)
TWO = ["one", "two"]


class Outcome:
    """Rows with their facts, or the problems; and the notices."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.facts: dict[str, Any] = {}
        self.problems: tuple[str, ...] = ()
        self.notices: list[str] = []

    def dropped(self, source: int = 0) -> dict[str, int]:
        """The reasons for which rows of a source were dropped."""
        return {k: v for k, v in self.facts["sources"][source]["dropped"].items() if v}


Load = Callable[..., Outcome]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write files beside a recipe and run the stage on those it names."""

    def write_and_load(
        files: dict[str, str | bytes], dataset: Dataset = SINGLE, **changes: Any
    ) -> Outcome:
        for name, content in files.items():
            (tmp_path / name).write_bytes(
                content if isinstance(content, bytes) else content.encode()
            )
        named = {"train": "train.tsv", "dev": "dev.tsv", "unlabelled": list(files)}
        outcome = Outcome()
        try:
            outcome.rows, outcome.facts = load_unlabelled(
                DataSettings(**{**named, **changes}),
                tmp_path,
                tmp_path / "cache",
                dataset,
                outcome.notices.append,
            )
        except DataError as error:
            outcome.problems = error.problems
        return outcome

    return write_and_load


def test_one_text_per_line(load: Load) -> None:
    outcome = load({"more.txt": '\ufeffone\n\n  two, "three"\t\u2028four \r\n \t\nfive'})
    assert outcome.rows == ["one", '  two, "three"\t\u2028four ', "five"]
    assert outcome.facts == {
        "rows": 3,
        "beyond_limit": 0,
        "sources": [
            {
                "source": "more.txt",
                "rows": 5,
                "kept": 3,
                "dropped": {"empty": 2, "repeated": 0, "in_train": 0, "in_dev": 0, "in_test": 0},
            }
        ],
    }
    assert outcome.notices == ["more.txt: 5 rows, 3 kept; dropped: 2 empty"]


def parquet(columns: dict[str, list[Any]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return bytes(sink.getvalue().to_pybytes())


def test_every_format_without_a_label_column(load: Load) -> None:
    files: dict[str, str | bytes] = {
        "a.csv": 'id,text\n1,"one, ""1"""\n2,\n',
        "b.tsv": 'text\tlabel\n"two"\tignored\nthree\t\n',
        "c.jsonl": '{"text": "four", "label": [1, null]}\n{"text": null}\n{"text": " "}\n',
        "d.parquet": parquet({"text": ["five", None], "label": [[1], [2]]}),
        "e.txt.gz": gzip.compress(b"six\n"),
    }
    outcome = load(files)
    assert outcome.problems == ()
    assert outcome.rows == ['one, "1"', '"two"', "three", "four", "five", "six"]
    empty = [source["dropped"]["empty"] for source in outcome.facts["sources"]]
    assert empty == [1, 0, 2, 1, 0]
    assert load({"more.txt": "one\n"}, unlabelled="more.txt").rows == ["one"]


def test_rows_of_train_dev_and_test_and_repetitions_are_dropped_and_counted(load: Load) -> None:
    outcome = load(
        {
            "a.txt": "new\nseen one\ndev one\ntest one\nnew\nseen two\nseen one\n",
            "b.txt": "new\nnewer\n",
        }
    )
    assert outcome.rows == ["new", "newer"]
    assert outcome.dropped(0) == {"in_train": 3, "in_dev": 1, "in_test": 1, "repeated": 1}
    assert outcome.dropped(1) == {"repeated": 1}
    assert [source["kept"] for source in outcome.facts["sources"]] == [1, 1]
    assert outcome.notices[0] == (
        "a.txt: 7 rows, 1 kept; dropped: 1 repeated, 3 also in train, 1 also in dev, 1 also in test"
    )


def test_held_out_rows_are_recognized_in_other_case_and_spacing(load: Load) -> None:
    """A lower-casing tokenizer does not distinguish them."""
    outcome = load({"a.txt": "DEV  one\n STRASSE nach\tROM \nSeen One\nTest one \n"})
    assert outcome.rows == ["Seen One"]  # another text than train's: two rows do not harm
    assert outcome.dropped() == {"in_dev": 2, "in_test": 1}


def test_pairs(load: Load) -> None:
    rows = "one\ttwo\nleft\tright\nright\tleft\nq\ta\nq\tb\nq\t\n\tb\nq\tb\n"
    outcome = load({"p.tsv": rows}, PAIRS, text=TWO)
    assert outcome.rows == [("right", "left"), ("q", "b")]
    assert outcome.dropped() == {"in_train": 1, "in_dev": 1, "empty": 2, "repeated": 1}
    (problem,) = load({"p.txt": "one\n"}, PAIRS, text=TWO).problems
    assert "p.txt holds one text per line, but data.text names two columns" in problem
    assert "csv, tsv, jsonl or parquet file with the columns 'one' and 'two'" in problem


def test_all_problems_with_their_places(load: Load) -> None:
    outcome = load(
        {
            "a.txt": b"f\xc3\xafne\nbr\xffken\nfine\n",
            "c.jsonl": '{"text": 3}\n{"text": "fine"}\nnonsense\n',
            "d.csv": "text,other\nx,1\ny\n",
            "e.parquet": parquet({"text": [1, 2]}),
        }
    )
    assert outcome.rows == []
    problems = "\n".join(outcome.problems)
    for part in (
        "a.txt, line 2: byte 0xff is not part of the file's encoding",
        "c.jsonl, line 1: a number in column 'text', not text",
        "c.jsonl, line 3: invalid JSON",
        "d.csv, line 3: 1 field, the header has 2",
        "e.parquet, rows 1, 2: a number in column 'text', not text",
    ):
        assert part in problems
    assert len(outcome.problems) == 5


def test_a_missing_column_and_no_row_left(load: Load) -> None:
    files: dict[str, str | bytes] = {"a.txt": "dev one\n", "b.csv": "body,label\nx,1\n"}
    (problem,) = load(files).problems
    assert problem.startswith("b.csv: no column 'text'; the columns are 'body', 'label'; set data")
    (problem,) = load({"a.txt": "dev one\nseen one\n\n"}).problems
    assert problem.startswith("no row is left of a.txt: 3 rows, 0 kept; dropped: 1 empty")


def test_a_limit_draws_by_seed_and_a_higher_one_adds(load: Load) -> None:
    lines = [f"text {number}" for number in range(300)]
    content = "\n".join(lines)
    few = load({"a.txt": content}, unlabelled_limit=50)
    assert len(few.rows) == few.facts["rows"] == 50
    assert few.facts["beyond_limit"] == 250
    assert few.notices[-1] == "data.unlabelled_limit: 50 of 300 unlabelled rows drawn"
    assert few.rows == [line for line in lines if line in set(few.rows)]  # in the file's order
    more = load({"a.txt": content}, unlabelled_limit=80)
    assert set(few.rows) < set(more.rows)
    backwards = load({"a.txt": "\n".join(reversed(lines))}, unlabelled_limit=50)
    assert set(backwards.rows) == set(few.rows)
    other = load({"a.txt": content}, unlabelled_limit=50, seed=7)
    assert 0 < len(set(other.rows) & set(few.rows)) < 40
    assert len({number // 100 for number in range(300) if lines[number] in few.rows}) == 3
    assert load({"a.txt": content}, unlabelled_limit=300).rows == lines


# hub splits


@pytest.fixture
def hub(tmp_path: Path) -> DataSettings:
    """A local folder in the hub's layout, with hidden labels as in GLUE."""
    splits: dict[str, Rows] = {
        "train": [("seen one", 0), ("x", 1)],
        "validation": [("dev one", 0), ("y", 1)],
        "test": [("dev one", -1), ("new", -1), ("", -1), ("newer", -1)],
        "test_extra": [("extra", -1), ("new", -1)],
    }
    write_glue(tmp_path / "hub", {"cola": splits})
    return DataSettings(
        hub="hub", config="cola", text="sentence", unlabelled_split=["test", "test_extra"]
    )


def test_hub_splits_and_files(tmp_path: Path, hub: DataSettings) -> None:
    rows, facts = load_unlabelled(hub, tmp_path, tmp_path / "cache", SINGLE, lambda line: None)
    assert rows == ["new", "newer", "extra"]
    sources: Any = facts["sources"]
    assert [source["source"] for source in sources] == [
        "hub (cola), split test", "hub (cola), split test_extra"
    ]  # fmt: skip
    assert sources[0]["dropped"]["empty"] == sources[0]["dropped"]["in_dev"] == 1
    assert sources[1]["dropped"]["repeated"] == 1
    (tmp_path / "more.csv").write_text("sentence,id\nmore,1\nnew,2\n")
    both = hub.model_copy(update={"unlabelled": "more.csv"})
    rows, _ = load_unlabelled(both, tmp_path, tmp_path / "cache", SINGLE, lambda line: None)
    assert rows == ["more", "new", "newer", "extra"]


def test_a_hub_split_that_is_not_there(tmp_path: Path, hub: DataSettings) -> None:
    wrong = hub.model_copy(update={"unlabelled_split": ["tset"]})
    with pytest.raises(DataError) as caught:
        load_unlabelled(wrong, tmp_path, tmp_path / "cache", SINGLE, lambda line: None)
    (problem,) = caught.value.problems
    assert "no split 'tset' (did you mean 'test'?)" in problem
    assert "set data.unlabelled_split" in problem


# identity and missing files


def test_identity_is_content_and_format(tmp_path: Path) -> None:
    data = {"train": "t.tsv", "dev": "d.tsv"}
    assert unlabelled_identity(DataSettings(**data), tmp_path) is None
    (tmp_path / "a.txt").write_text("text\none\n")
    (tmp_path / "b.csv").write_text("text\none\n")

    def identity(*names: str) -> Any:
        return unlabelled_identity(DataSettings(**data, unlabelled=list(names)), tmp_path)

    assert identity("a.txt") != identity("b.csv")
    (tmp_path / "renamed.txt").write_text("text\none\n")
    assert identity("a.txt") == identity("renamed.txt")
    before = identity("a.txt")
    (tmp_path / "a.txt").write_text("text\ntwo\n")
    assert identity("a.txt") != before
    assert json.dumps(before)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").touch()
    data = DataSettings(train="t.tsv", dev="d.tsv", unlabelled=["text.txt", "texts.txt"])
    with pytest.raises(DataError) as caught:
        unlabelled_identity(data, tmp_path)
    missing, empty = caught.value.problems
    assert missing.startswith("data.unlabelled: no such file text.txt in")
    assert "similar names: texts.txt" in missing
    assert empty.startswith("texts.txt: is empty")


# on disk


@pytest.mark.parametrize(
    "rows", [["a", "", "b\r\n\0é"], [("a,b", "\r"), ("", "\n\0")]], ids=["texts", "pairs"]
)
def test_stored_rows_keep_every_character(tmp_path: Path, rows: Any) -> None:
    write_unlabelled(rows, tmp_path)
    assert read_unlabelled(tmp_path) == rows


def test_a_broken_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_unlabelled(tmp_path)
    (tmp_path / "unlabelled.parquet").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="run the unlabelled stage again"):
        read_unlabelled(tmp_path)
