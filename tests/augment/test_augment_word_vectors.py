"""Files of word vectors in every format, and files that are not word vectors."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.augment.word_vectors import read_vectors, vector_neighbours
from factory.errors import DataError

VECTORS: Mapping[str, Sequence[float]] = {
    "the": (0.5, -0.25, 1.0),
    "film": (1.5, 0.125, -2.0),
    "Film": (0.0, 3.5, 1e-5),
    "фильм": (-1.25, 0.75, 0.5),
    "new_york": (2.0, 1.0, 4.0),
}


def glove(vectors: Mapping[str, Sequence[float]] = VECTORS) -> bytes:
    rows = [f"{word} {' '.join(map(str, vector))}\n" for word, vector in vectors.items()]
    return "".join(rows).encode()


def word2vec_text(end: str = "") -> bytes:
    """With a header; fastText's .vec also ends each row with a blank."""
    rows = glove().decode().replace("\n", f"{end}\n")
    return f"{len(VECTORS)} 3\n{rows}".encode()


def word2vec_binary(end: bytes = b"\n") -> bytes:
    rows = [word.encode() + b" " + struct.pack("<3f", *v) + end for word, v in VECTORS.items()]
    return b"5 3\n" + b"".join(rows)


def fasttext_binary() -> bytes:
    """Version 12 of fastText's format, with no parts of words, so each vector is its word's own."""
    settings = struct.pack("<12id", 3, 5, 5, 1, 5, 1, 2, 2, 0, 0, 0, 100, 1e-4)
    words = b"".join(word.encode() + b"\0" + struct.pack("<qb", 9, 0) for word in VECTORS)
    counts = struct.pack("<3i2q", len(VECTORS), len(VECTORS), 0, 45, -1)
    matrix = struct.pack("<?2q", False, len(VECTORS), 3)
    values = np.array(list(VECTORS.values()), dtype="<f4").tobytes()
    head = struct.pack("<2i", 793712314, 12)
    return head + settings + counts + words + matrix + values + matrix + values


FORMATS = {
    "glove": glove(),
    "word2vec text": word2vec_text(),
    "fasttext text": word2vec_text(" "),
    "windows lines": glove().replace(b"\n", b"\r\n"),
    "word2vec binary": word2vec_binary(),
    "word2vec binary, older": word2vec_binary(b""),
    "fasttext binary": fasttext_binary(),
}


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("kind", FORMATS)
def test_the_content_determines_the_format(tmp_path: Path, kind: str, gzipped: bool) -> None:
    file = tmp_path / ("vectors.txt" if gzipped else "vectors.gz")
    file.write_bytes(gzip.compress(FORMATS[kind]) if gzipped else FORMATS[kind])
    words, vectors = read_vectors(file, None)
    assert words == list(VECTORS)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, np.array(list(VECTORS.values()), dtype=np.float32))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_limit_counts_from_the_beginning(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "vectors"
    file.write_bytes(FORMATS[kind])
    file.write_bytes(FORMATS[kind] + (b"" if "binary" in kind else b"short 1\n"))
    assert read_vectors(file, 2)[0] == ["the", "film"]
    file.write_bytes(FORMATS[kind])
    assert len(read_vectors(file, 100)[0]) == 5


def test_neighbours_of_words_as_written_and_in_lower_case(tmp_path: Path) -> None:
    file = tmp_path / "vectors"
    rows = {"paris": (1, 0), "rome": (1, 0.1), "May": (0.2, 1), "june": (0.1, 1), "may": (1, 0.3)}
    file.write_bytes(glove(rows))
    near = vector_neighbours(file, None)
    assert near.neighbours(["Paris", "PARIS"], 2) == [["rome", "may"]] * 2
    assert near.neighbours(["May", "may", "MAY"], 1) == [["june"], ["rome"], ["rome"]]
    assert near.neighbours(["oslo", "paris"], 9) == [[], ["rome", "may", "May", "june"]]


def test_tokens_that_are_not_words_are_skipped(tmp_path: Path) -> None:
    """GloVe 840B has the tokens with spaces."""
    file = tmp_path / "vectors"
    file.write_bytes(
        b"good 1 2\n. . . 3 4\nat name@domain.com 5 6\n, 7 8\n1990 9 1\n 2 3\nb\xe9b\xe9 4 5\n"
        b"good 6 7\nfine 8 9\nU.S. 1 1\n"
    )
    words, vectors = read_vectors(file, None)
    assert words == ["good", "fine", "U.S."]
    assert vectors.tolist() == [[1, 2], [8, 9], [1, 1]]


def problem_of(tmp_path: Path, content: bytes) -> str:
    file = tmp_path / "vectors"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_vectors(file, None)
    assert len(caught.value.problems) == 1
    problem = caught.value.problems[0]
    assert problem.startswith(str(file))
    return problem.removeprefix(str(file))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (glove() + b"short 1 2\n", ", line 6: 2 numbers, expected 3"),
        (glove() + b"long 0.1 0.2 0.3 0.4\n", ", line 6: 4 numbers, expected 3"),
        (b"first 1 2\n" + glove(), ", line 1: 2 numbers, expected 3"),
        (glove() + b"odd 1 x 2\n", ", line 6: '1 x 2' should be 3 numbers"),
        (glove() + b"\n" + glove(), ", line 6: 0 numbers, expected 3"),
        (glove() + b"odd 1 nan 2\n", ": the vector of 'odd' contains nan or inf"),
        (b"9 3\n" + glove(), ": the header announces 9 rows, but there are 5"),
        (b"", ": the file is empty"),
        # a fixed time, because the bytes are the name of the case
        (gzip.compress(b"", mtime=0), ": the file is empty"),
        (b"3 2\n", ": the header announces 3 rows, but there are 0"),
        (b"word\nanother\n", ", line 1: expected a word and numbers separated"),
        (b"Once upon a time\nwe read no words\n", ", line 1: 'upon a time' should be 3 numbers"),
        (b'{"text": "a b"}\n', ", line 1: "),
        (b", 1 2\n. 3 4\n", ": the file contains no words"),
        (b"PK\x03\x04\x14\x00\x00", ": a zip archive; extract it"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", ": neither text nor a known binary file"),
        (word2vec_binary()[:-30], ": gensim cannot read it as a word2vec file"),
        (b"5 30" + word2vec_binary()[3:], ": gensim cannot read it as a word2vec file"),
        (fasttext_binary()[:120], ": truncated, or quantized (.ftz)"),
        (fasttext_binary()[:-100], ": gensim cannot read it as a fastText file"),
        (gzip.compress(glove() * 500, mtime=0)[:-100], ": Compressed file ended"),
    ],
)  # fmt: skip
def test_broken_files(tmp_path: Path, content: bytes, expected: str) -> None:
    problem = problem_of(tmp_path, content)
    assert problem.startswith(expected)
    assert ";" in problem  # what to do


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.*No such file|No such file.*nowhere"):
        read_vectors(tmp_path / "nowhere", None)


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(categories=["L"]), min_size=1, max_size=8),
        st.lists(
            st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4
        ),
        min_size=1,
        max_size=12,
    ),
    st.booleans(),
)
def test_any_words_and_numbers_are_read_exactly(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, list[float]], header: bool
) -> None:
    file = tmp_path_factory.mktemp("vectors") / "file"
    file.write_bytes((f"{len(rows)} 4\n".encode() if header else b"") + glove(rows))
    words, vectors = read_vectors(file, None)
    assert words == list(rows)
    np.testing.assert_array_equal(vectors, np.array(list(rows.values()), dtype=np.float32))
