"""Raw text, JSON Lines, gzip and hub layouts as pieces; problems with their location."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from factory.data import corpus
from factory.data.corpus import corpus_identity, read_pieces
from factory.data.formats import DataFile
from factory.data.reading import Row
from factory.data.shards import Piece
from factory.errors import DataError
from factory.recipe.training import GeneralSettings

Read = Callable[..., list[Piece]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write files and read them as the corpus, in the order given."""

    def write_and_read(files: dict[str, str | bytes], **settings: Any) -> list[Piece]:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        if "hub" not in settings:
            settings = {"corpus": list(files), **settings}
        return list(read_pieces(GeneralSettings(**settings), tmp_path))

    return write_and_read


def problem(read: Read, files: dict[str, str | bytes], **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(files, **settings)
    (line,) = caught.value.problems
    return line


def whole(*texts: str) -> list[Piece]:
    return [Piece(text, starts=True) for text in texts]


def test_documents_are_lines_or_stand_between_blank_lines(read: Read) -> None:
    lines = "\n\none\n two \r\n\n \t\nthree"
    assert read({"a.txt": lines}) == whole("one", " two ", "three")
    pieces = read({"a.txt": lines, "b.txt": "four"}, documents="blank_lines")
    assert pieces == [
        Piece("one", True), Piece(" two ", False), Piece("three", True), Piece("four", True)
    ]  # fmt: skip


def test_several_files_of_every_format_in_the_given_order(read: Read) -> None:
    files: dict[str, str | bytes] = {
        "z.txt.gz": "one\n",
        "a.jsonl": '{"body": "two\\nlines", "id": 7}\n',
        "b.jsonl.gz": '{"body": "three"}\n{"body": ""}',
    }
    assert read(files, text="body") == whole("one", "two\nlines", "three", "")


def test_a_byte_order_mark_is_dropped_and_other_separators_are_kept(read: Read) -> None:
    text = "\ufeffone\u2028two\x85three\x0cfour\n\ufefffive\n"
    assert read({"a.txt": text}) == whole("one\u2028two\x85three\x0cfour", "\ufefffive")


def test_missing_and_unknown_files_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "corpus.csv").touch()
    (tmp_path / "korpus.txt").touch()
    settings = GeneralSettings(corpus=["corpus.txt", "corpus.csv"])
    with pytest.raises(DataError) as caught:
        read_pieces(settings, tmp_path)
    missing, unknown = caught.value.problems
    assert "general.corpus: no such file corpus.txt" in missing
    assert "korpus.txt" in missing
    assert "corpus.csv has none of the endings .txt, .jsonl" in unknown


def test_broken_encoding_and_broken_gzip(read: Read, tmp_path: Path) -> None:
    for name in ("a.txt", "a.txt.gz"):
        line = problem(read, {name: b"fine\nalso \xc3\xa9\nbad \xe9 byte\n"})
        assert line.startswith(f"{name}, line 3: byte 0xe9 is not part of the file's encoding")
    content = gzip.compress("\n".join(str(number) for number in range(9999)).encode())
    (tmp_path / "cut.txt.gz").write_bytes(content[:-9])
    with pytest.raises(DataError, match=r"cut\.txt\.gz: cannot be decompressed"):
        list(read_pieces(GeneralSettings(corpus="cut.txt.gz"), tmp_path))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"txt": "a"}', "no key 'text' (did you mean 'txt'?); the keys are 'txt'"),
        ('{"text": 3}', "'text' holds 3, not text"),
        ('{"text": null}', "'text' holds None, not text"),
        ('{"text": "\\ud800"}', "invalid JSON"),
        ('["a"]', "a list instead of a JSON object"),
        ('{"text": "a"', "invalid JSON (Input data was truncated)"),
    ],
)
def test_a_line_without_text_has_its_number(read: Read, line: str, words: str) -> None:
    found = problem(read, {"a.jsonl": f'{{"text": "fine"}}\n{line}\n'})
    assert found.startswith("a.jsonl, line 2: ")
    assert words in found


# the hub's layout


def test_a_local_folder_in_the_hubs_layout_is_streamed(read: Read) -> None:
    files: dict[str, str | bytes] = {
        "h/train.jsonl": '{"body": "one"}\n{"body": "two"}\n',
        "h/validation.jsonl": '{"body": "three"}\n',
    }
    assert read(files, hub="h", text="body") == whole("one", "two")
    assert read(files, hub="./h", text="body", split="validation") == whole("three")


def test_problems_of_a_hub_data_set(read: Read) -> None:
    files: dict[str, str | bytes] = {"h/train.jsonl": '{"text": "one"}\n{"text": null}\n'}
    assert problem(read, files, hub="h") == "h, split train, row 2: 'text' holds None, not text"
    found = problem(read, files, hub="h", text="body")
    assert found.startswith("h, split train, row 1: no key 'body'")
    assert "test" in problem(read, files, hub="h", split="test")
    assert "general.hub: no such folder ./nowhere" in problem(read, files, hub="./nowhere")


# constant memory


def test_one_line_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader reads no more of an endless file than its consumer needs."""
    taken = 0

    def endless(_file: DataFile) -> Iterator[Row]:
        nonlocal taken
        for taken in itertools.count(1):
            yield Row(taken, {"text": f"line {taken}" if taken % 5 else ""})

    (tmp_path / "a.txt").touch()
    monkeypatch.setattr(corpus, "read_rows", endless)
    for documents in ("lines", "blank_lines"):
        pieces = read_pieces(GeneralSettings(corpus="a.txt", documents=documents), tmp_path)
        assert taken == 0
        for wanted in range(1, 100):
            next(pieces)
            assert taken <= wanted * 5 / 4 + 1
        taken = 0


# identity


def test_content_and_order_identify_the_files_and_names_do_not(tmp_path: Path) -> None:
    for name in ("a.txt", "c.txt"):
        (tmp_path / name).write_text("one", encoding="utf-8")
    (tmp_path / "b.txt").write_text("two", encoding="utf-8")

    def identity(*names: str) -> dict[str, object]:
        return corpus_identity(GeneralSettings(corpus=list(names)), tmp_path)

    assert identity("a.txt", "b.txt") == identity("c.txt", "b.txt")
    assert identity("a.txt", "b.txt") != identity("b.txt", "a.txt")
    assert identity("a.txt") != identity("a.txt", "c.txt")


def test_a_local_hub_folder_is_identified_by_content_too(tmp_path: Path) -> None:
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "train.jsonl").write_text("{}", encoding="utf-8")
    settings = GeneralSettings(hub="h")
    before = corpus_identity(settings, tmp_path)
    (tmp_path / "h" / "train.jsonl").write_text("{} ", encoding="utf-8")
    assert corpus_identity(settings, tmp_path) != before
    hub = corpus_identity(GeneralSettings(hub="org/set", revision="v1"), tmp_path)
    assert hub == {"hub": "org/set", "config": None, "revision": "v1", "split": "train"}
