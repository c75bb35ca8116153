"""Word vectors from a file: GloVe, word2vec and fastText, text or binary, gzipped or not."""

from __future__ import annotations

import gzip
import re
import shutil
import statistics
import struct
import tempfile
import warnings
import zlib
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from factory.augment.neighbours import NearestWords, Neighbours
from factory.data.messages import count as counted
from factory.data.messages import quote
from factory.errors import DataError, first_line

HEADLINE = "cannot read the word vectors (augment.vectors)"
ADVICE = "name a file of word vectors: GloVe, word2vec or fastText, text or binary"
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
# The number 793712314 in little-endian order, at the beginning of a fastText .bin file.
FASTTEXT = b"\xba\x16\x4f\x2f"
# The header's fields: width, buckets for subwords, dictionary entries, words among them.
FASTTEXT_HEAD = struct.Struct("<8xi28xi20xii")
HEADER = re.compile(rb"(\d+) (\d+)[ \t\r]*\n")
# Text does not contain these characters; four kilobytes of floats do.
BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")
# A decimal number: distinguishes a row with too many numbers from a token with spaces.
DECIMAL = re.compile(rb"-?\d*\.\d+(e-?\d+)?", re.IGNORECASE)
BEGINNING_BYTES = 4096
ROWS_FOR_WIDTH = 100


def vector_neighbours(file: Path, limit: int | None) -> Neighbours:
    """The nearest words among those of a file, whose format its first bytes determine.

    A word that the file does not contain as written is looked up in lower case. Tokens without
    letters and tokens with spaces (GloVe 840B has some) are skipped; of repeated tokens, the first
    counts.

    Args:
        limit: number of rows to read from the beginning of the file; None: all.

    Raises:
        DataError: the file is missing, empty, broken, has rows of different widths, or contains no
            word vectors; for text files with the line.
    """
    words, vectors = read_vectors(file, limit)
    numbers = {word: number for number, word in enumerate(words)}

    def vector_of(word: str) -> NDArray[np.float32] | None:
        number = numbers.get(word, numbers.get(word.lower()))
        return None if number is None else vectors[number]

    return NearestWords(words, vectors, vector_of)


def read_vectors(file: Path, limit: int | None) -> tuple[list[str], NDArray[np.float32]]:
    """The words of a file and their vectors, (words, width).

    Raises:
        DataError: as `vector_neighbours`.
    """
    try:
        with _opened(file) as stream:
            beginning = stream.read(BEGINNING_BYTES)
        header, binary = HEADER.match(beginning), BINARY.search(beginning)
        if not beginning.strip():
            raise _problem(file, f"the file is empty; {ADVICE}")
        if beginning.startswith(ZIP):
            raise _problem(file, "a zip archive; extract it and name the file of vectors")
        if beginning.startswith(FASTTEXT):
            words, vectors = _by_gensim(file, limit, "fastText")
        elif binary and not header:
            raise _problem(file, f"neither text nor a known binary file; {ADVICE}")
        elif binary:
            words, vectors = _by_gensim(file, limit, "word2vec")
        else:
            words, vectors = _read_text(file, limit, header)
    except (OSError, EOFError, zlib.error) as error:
        problem = f"{file}: {first_line(error)}; check the path, or download the file again"
        raise DataError(HEADLINE, [problem]) from error
    if not words:
        raise _problem(file, f"the file contains no words; {ADVICE}")
    if not np.isfinite(vectors).all():
        word = words[int(np.isfinite(vectors).all(axis=1).argmin())]
        raise _problem(file, f"the vector of {quote(word)} contains nan or inf; remove its row")
    return words, vectors


def _opened(file: Path) -> IO[bytes]:
    with file.open("rb") as stream:
        gzipped = stream.read(len(GZIP)) == GZIP
    return gzip.open(file) if gzipped else file.open("rb")  # type: ignore[return-value]


def _problem(file: Path, problem: str, line: int | None = None) -> DataError:
    place = str(file) if line is None else f"{file}, line {line}"
    return DataError(HEADLINE, [f"{place}: {problem}"])


def _read_text(
    file: Path, limit: int | None, header: re.Match[bytes] | None
) -> tuple[list[str], NDArray[np.float32]]:
    """Read rows of a word and numbers, separated by single spaces.

    gensim is not used here: it takes everything after the first space for numbers, and its errors
    do not name the line.
    """
    with _opened(file) as stream, warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # raised by text that is not a number
        if header:
            stream.readline()
            announced, width = int(header[1]), int(header[2])
        else:
            announced, width = 0, _usual_width(file)
        first = 2 if header else 1
        words: dict[str, None] = {}
        numbers = bytearray()
        line = first - 1
        for line, row in enumerate(islice(stream, limit), first):
            token, vector = _parsed(file, line, row, width)
            if _is_candidate(token) and token not in words:
                words[token] = None
                numbers += vector.tobytes()
    rows = line - first + 1
    if header and rows < min(announced, limit or announced):
        found = f"the header announces {counted(announced, 'row')}, but there are {rows:,}"
        raise _problem(file, f"{found}; the file is truncated, download it again")
    return list(words), np.frombuffer(numbers, dtype=np.float32).reshape(-1, width)


def _usual_width(file: Path) -> int:
    """The most frequent number of values among the first rows of a file without a header."""
    with _opened(file) as stream:
        widths = [row.rstrip().count(b" ") for row in islice(stream, ROWS_FOR_WIDTH)]
    width = statistics.mode(widths)
    if width == 0:
        raise _problem(file, f"expected a word and numbers separated by spaces; {ADVICE}", 1)
    return width


def _parsed(file: Path, line: int, row: bytes, width: int) -> tuple[str, NDArray[np.float32]]:
    """The token of a row, which may contain spaces, and its vector, (width,)."""
    token, *numbers = row.rstrip().rsplit(b" ", width)
    pieces = token.split(b" ")
    too_many = len(pieces) - 1 if all(map(DECIMAL.fullmatch, pieces[1:])) else 0
    if len(numbers) < width or too_many:
        found = counted(len(numbers) + too_many, "number")
        raise _problem(file, f"{found}, expected {width:,}; fix or remove the row", line)
    try:
        vector = np.fromstring(b" ".join(numbers), dtype=np.float32, sep=" ")
    except (ValueError, DeprecationWarning):  # before numpy 2.4, a warning
        vector = np.empty(0, dtype=np.float32)
    if len(vector) != width:
        found = quote(b" ".join(numbers).decode(errors="replace"))
        raise _problem(file, f"{found} should be {counted(width, 'number')}; {ADVICE}", line)
    return token.decode(errors="replace"), vector


def _is_candidate(token: str) -> bool:
    return " " not in token and "\ufffd" not in token and any(map(str.isalpha, token))


def _by_gensim(file: Path, limit: int | None, kind: str) -> tuple[list[str], NDArray[np.float32]]:
    """Read a binary file of word2vec or fastText with gensim."""
    from gensim.models import KeyedVectors
    from gensim.models.fasttext import load_facebook_vectors

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors"
        with _opened(file) as stream:
            if isinstance(stream, gzip.GzipFile):  # gensim reads compressed fastText files wrongly
                with path.open("wb") as unpacked:
                    shutil.copyfileobj(stream, unpacked)
            else:  # gensim decompresses a file if its name ends in .gz
                path.symlink_to(file.resolve())
        if kind == "fastText":
            _check_size(file, path)
        try:
            if kind == "fastText":
                loaded = load_facebook_vectors(str(path))
            else:
                loaded = KeyedVectors.load_word2vec_format(
                    str(path), binary=True, limit=limit, unicode_errors="replace"
                )
        except Exception as error:  # gensim checks little: a broken file raises any of them
            problem = f"gensim cannot read it as a {kind} file ({first_line(error)}); {ADVICE}"
            raise _problem(file, problem) from error
    words = loaded.index_to_key[:limit]
    rows = [row for row, word in enumerate(words) if _is_candidate(word)]
    return [words[row] for row in rows], loaded.vectors[rows].astype(np.float32)


def _check_size(file: Path, path: Path) -> None:
    """Raise if a fastText file is too short: gensim would read its dictionary forever."""
    with path.open("rb") as stream:
        head = stream.read(FASTTEXT_HEAD.size)
    least = FASTTEXT_HEAD.size
    if len(head) == least:
        width, bucket, entries, words = FASTTEXT_HEAD.unpack(head)
        # each entry: at least a letter, a zero, a count and a type
        least += 11 * entries + 4 * width * (words + bucket)
    if path.stat().st_size < least:
        problem = "truncated, or quantized (.ftz), which gensim cannot read; use the .bin file"
        raise _problem(file, problem)
