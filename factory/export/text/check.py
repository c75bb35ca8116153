"""Compare a text model with the tokenizer and the network it was written from."""

# ruff: noqa: RUF001 letters that look like others are meant here

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.errors import ParityError, first_line
from factory.export.text.characters import SURROGATES
from factory.export.text.model import ROW_NAMES, TextForm
from factory.models.tasks import TASKS
from factory.recipe.task import TASK_TRAITS
from serving.tokenization import TextTokenizer

CONTEXT_POINTS = 128  # code points in one text, each within a word and alone
BATCH_TEXTS = 32
SCORE_TEXTS = 3  # not 1: padding and the order of rows take part
ATOL = 1e-5

Inputs = list[str] | list[tuple[str, str]]
Arrays = dict[str, NDArray[Any]]


def feed_of(inputs: Inputs) -> Arrays:
    """The inputs of a graph that reads text; none are taken for single texts."""
    pairs = bool(inputs) and not isinstance(inputs[0], str)
    sides = zip(*inputs, strict=True) if pairs else [inputs]
    names = ("text", "text_pair")
    return {name: np.array(side, dtype=object) for name, side in zip(names, sides, strict=False)}


def expected_rows(tokenizer: TextTokenizer, inputs: Inputs) -> Arrays:
    """The network's inputs by the server's tokenizer, padded to the longest row."""
    encoded = tokenizer.encode(inputs)
    shape = (len(encoded), max(map(len, encoded)))
    rows: Arrays = {name: np.zeros(shape, dtype=np.int64) for name in ROW_NAMES}
    rows["input_ids"][:] = tokenizer.pad_id
    for row, item in enumerate(encoded):
        rows["input_ids"][row, : len(item)] = item.input_ids
        rows["attention_mask"][row, : len(item)] = 1
        rows["token_type_ids"][row, : len(item)] = item.token_type_ids
    rows["token_count"] = np.array([len(item) for item in encoded])
    rows["truncated"] = np.array([item.truncated for item in encoded])
    return rows


def different_rows(session: Any, tokenizer: TextTokenizer, inputs: Inputs) -> list[int]:
    """Positions of the inputs that a graph of `build_row_model` tokenizes differently.

    Raises:
        ParityError: onnxruntime fails on them.
    """
    different: list[int] = []
    order = sorted(range(len(inputs)), key=lambda position: sum(map(len, inputs[position])))
    for first in range(0, len(order), BATCH_TEXTS):
        positions = order[first : first + BATCH_TEXTS]
        if not _reads_alike(session, tokenizer, inputs, positions):
            # rows of a batch share their width: find the row that differs one by one
            found = [p for p in positions if not _reads_alike(session, tokenizer, inputs, [p])]
            different += found or positions
    return sorted(different)


def _reads_alike(
    session: Any, tokenizer: TextTokenizer, inputs: Inputs, positions: Sequence[int]
) -> bool:
    batch: Inputs = [inputs[position] for position in positions]  # type: ignore[assignment]
    expected = expected_rows(tokenizer, batch)
    found = _run(session, list(expected), feed_of(batch))
    return all(map(np.array_equal, found, expected.values()))


def different_points(session: Any, tokenizer: TextTokenizer, points: Sequence[int]) -> list[int]:
    """Code points that a graph for single texts tokenizes differently, alone or within a word."""
    points = [point for point in points if point not in SURROGATES]
    chunks = [points[n : n + CONTEXT_POINTS] for n in range(0, len(points), CONTEXT_POINTS)]
    texts = ["".join(map(_contexts, chunk)) for chunk in chunks]
    suspects = [
        point
        for position in different_rows(session, tokenizer, texts)
        for point in chunks[position]
    ]
    alone = different_rows(session, tokenizer, [_contexts(point) for point in suspects])
    return [suspects[position] for position in alone]


def largest_score_difference(
    session: Any, network: Any, tokenizer: TextTokenizer, inputs: Inputs, form: TextForm
) -> float:
    """Compare a text model with tokenizer, network and answer run one after the other.

    Both run the same batches, so that padding is the same.

    Raises:
        ParityError: a label that the scores do not give, or another number of labels.
    """
    worst = 0.0
    wanted = [value.name for value in network.get_inputs()]
    names = [value.name for value in session.get_outputs()]
    for first in range(0, len(inputs), SCORE_TEXTS):
        batch: Inputs = inputs[first : first + SCORE_TEXTS]
        rows = expected_rows(tokenizer, batch)
        (logits,) = _run(network, ["logits"], {name: rows[name] for name in wanted})
        if logits.shape[1] != len(form.labels):
            raise ParityError(
                f"the network has {logits.shape[1]} outputs for {len(form.labels)} labels"
            )
        expected = TASKS[form.task].activation(logits)
        found = dict(zip(names, _run(session, names, feed_of(batch)), strict=True))
        difference = np.abs(found["scores"] - expected)
        worst = float(np.maximum(worst, difference.max()))  # keeps a NaN
        if TASK_TRAITS[form.task].has_labels:
            _check_labels(found, expected, form)
    return worst


def _check_labels(found: Arrays, expected: NDArray[np.float64], form: TextForm) -> None:
    """Check that labels follow from the scores; on a threshold either side is right."""
    labels = np.array(form.labels, dtype=object)
    if form.thresholds is None:
        best = expected[np.arange(len(expected)), [form.labels.index(x) for x in found["label"]]]
        wrong = bool((best < expected.max(axis=1) - ATOL).any())
    else:
        limits = np.array(form.thresholds)
        unclear = np.abs(expected - limits) <= ATOL
        right = found["label"] == np.where(expected >= limits, labels, "")
        wrong = not bool((right | unclear).all())
    if wrong:
        raise ParityError("the labels of the text model do not follow from its scores")


def _contexts(point: int) -> str:
    character = chr(point)
    return f"a{character}b {character} "


def _run(session: Any, names: list[str], feed: Arrays) -> Iterator[NDArray[Any]]:
    try:
        return iter(session.run(names, feed))
    except Exception as error:  # onnxruntime's own errors share no base class
        raise ParityError(f"onnxruntime fails on a text model: {first_line(error)}") from error


# Blocks of Unicode by first and last code point.
SCRIPTS: dict[str, tuple[tuple[int, int], ...]] = {
    "latin": ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF), (0xAB30, 0xAB6F)),
    "greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "cyrillic": ((0x400, 0x52F), (0x1C80, 0x1C8F), (0x2DE0, 0x2DFF), (0xA640, 0xA69F)),
    "armenian": ((0x530, 0x58F),),
    "georgian": ((0x10A0, 0x10FF), (0x1C90, 0x1CBF)),
    "hebrew": ((0x590, 0x5FF), (0xFB1D, 0xFB4F)),
    "arabic": ((0x600, 0x6FF), (0x750, 0x77F), (0x8A0, 0x8FF), (0xFB50, 0xFDFF)),
    "syriac": ((0x700, 0x74F), (0x780, 0x7FF)),
    "devanagari": ((0x900, 0x97F), (0xA8E0, 0xA8FF)),
    "bengali": ((0x980, 0x9FF),),
    "gurmukhi": ((0xA00, 0xA7F),),
    "gujarati": ((0xA80, 0xAFF),),
    "oriya": ((0xB00, 0xB7F),),
    "tamil": ((0xB80, 0xBFF),),
    "telugu": ((0xC00, 0xC7F),),
    "kannada": ((0xC80, 0xCFF),),
    "malayalam": ((0xD00, 0xD7F),),
    "sinhala": ((0xD80, 0xDFF),),
    "thai": ((0xE00, 0xE7F),),
    "lao": ((0xE80, 0xEFF),),
    "tibetan": ((0xF00, 0xFFF),),
    "burmese": ((0x1000, 0x109F),),
    "ethiopic": ((0x1200, 0x139F),),
    "cherokee": ((0x13A0, 0x13FF), (0xAB70, 0xABBF)),
    "khmer": ((0x1780, 0x17FF),),
    "mongolian": ((0x1800, 0x18AF),),
    "hangul": ((0xAC00, 0xD7A3), (0x1100, 0x11FF), (0x3130, 0x318F), (0xA960, 0xA97F)),
    "kana": ((0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF65, 0xFF9F)),
    "han": ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0xF900, 0xFAFF), (0x20000, 0x2FA1F)),
    "marks": ((0x300, 0x36F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF)),
    "symbols": ((0x2000, 0x2BFF), (0x3000, 0x303F), (0xFF00, 0xFF64), (0x1D400, 0x1D7FF)),
    "emoji": ((0x1F1E6, 0x1F1FF), (0x1F300, 0x1FAFF), (0xFE00, 0xFE0F)),
    "ancient": ((0x10000, 0x10FFF), (0x11000, 0x12FFF), (0x1D165, 0x1D172), (0x1E000, 0x1E94B)),
    "controls": ((0x00, 0x1F), (0x7F, 0xA0), (0x200B, 0x200F), (0x2028, 0x202F), (0xFFF0, 0xFFFF)),
    "anything": ((0x00, 0xD7FF), (0xE000, 0x10FFFF)),
}
JOINERS = ("\u200d", "\u200c", "\ufe0f", "\u0301", "\u0323", "\u0327", "\u00ad", "\u2060", "\u3099")
BLANKS = (" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u0085", "\ufeff")
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\u2019\u2026\u3002\u060c"
SENTENCES = (
    "The café’s naïve résumé: £5.00 (approx.) isn't $6!",
    "Ο Οδυσσέας ΟΔΥΣΣΕΎΣ ὈΔΥΣΣΕΎΣ είπε: ναι;",
    "Tiếng Việt có nhiều dấu: ường, ẫ, ộ, Ệ",
    "안녕하세요 세계, 각각의 꽃",
    "สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่าง",
    "नमस्ते दुनिया, क्या हाल है?",
    "İstanbul'da ıspanak GROẞE Straße ǅ ﬁ ﬂ",
    "中文没有空格。日本語の文、カタカナとひらがな",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪 ❤️ :-) 1️⃣",
    "e\u0323\u0301 e\u0301\u0323 q\u0307\u0323 \u1100\u1161\u11a8",
    "https://example.org/a_b?c=d&e=%20#f user@host.tld v1.2.3-rc4",
)


def difficult_strings(
    count: int, seed: int, literals: Sequence[str], pieces: Sequence[str]
) -> list[tuple[str, str]]:
    """Names of scripts and strings of them, the same for the same arguments.

    Args:
        literals: added tokens, put into every fourth string, now and then damaged.
        pieces: of the vocabulary, which words are glued from.
    """
    source = random.Random(seed)
    names = list(SCRIPTS)
    makers: list[Callable[[str], str]] = [
        lambda script: _words(source, script),
        lambda script: _mixed(source, script, names),
        lambda script: _glued(source, script, pieces),
        lambda script: _sentence(source, script),
    ]
    found = [("empty", text) for text in ("", " ", "\t\n", "\0", "\u200b", "\u0301", *literals)]
    while len(found) < count:
        script = names[len(found) % len(names)]
        text = makers[len(found) // len(names) % len(makers)](script)
        if literals and source.random() < 0.25:
            text = _with_literal(source, text, literals)
        found.append((script, text))
    return found[:count]


def character_of(source: random.Random, script: str) -> str:
    """One character of a script, assigned or not."""
    first, last = source.choice(SCRIPTS[script])
    return chr(source.randint(first, last))


def _word(source: random.Random, script: str, longest: int = 12) -> str:
    parts = []
    for _ in range(source.randint(1, longest)):
        parts.append(character_of(source, script))
        if source.random() < 0.1:
            parts.append(source.choice(JOINERS))
    return "".join(parts)


def _joined(source: random.Random, words: list[str]) -> str:
    """Words joined by blanks, punctuation or nothing."""
    parts = []
    for word in words:
        parts += [word, source.choice((*BLANKS, "", " "))]
        if source.random() < 0.3:
            parts.append(source.choice(PUNCTUATION))
    return "".join(parts)


def _words(source: random.Random, script: str) -> str:
    longest = 130 if source.random() < 0.1 else 12  # around the longest word that is read
    return _joined(source, [_word(source, script, longest) for _ in range(source.randint(1, 8))])


def _mixed(source: random.Random, script: str, names: Sequence[str]) -> str:
    scripts = [script, *source.choices(names, k=source.randint(1, 5))]
    words = ["".join(_word(source, source.choice(scripts), 3) for _ in range(3)) for _ in scripts]
    return _joined(source, words)


def _glued(source: random.Random, script: str, pieces: Sequence[str]) -> str:
    """Words of the vocabulary's pieces, a few with a character it may not have."""
    words = []
    for _ in range(source.choice((3, 8, 40, 300))):
        word = "".join(source.choices(pieces, k=source.randint(1, 4)))
        if source.random() < 0.1:
            word += character_of(source, script)
        words.append(word.title() if source.random() < 0.2 else word)
    return _joined(source, words)


def _sentence(source: random.Random, script: str) -> str:
    text = source.choice(SENTENCES)
    place = source.randint(0, len(text))
    return text[:place] + _word(source, script, 4) + text[place:]


def _with_literal(source: random.Random, text: str, literals: Sequence[str]) -> str:
    for _ in range(source.randint(1, 3)):
        literal = source.choice(literals)
        if source.random() < 0.2:
            literal = source.choice((literal.lower(), literal[:-1], literal[1:], literal * 2))
        place = source.randint(0, len(text))
        text = text[:place] + literal + text[place:]
    return text
