"""Strings of every script that are hard to tokenize, to compare a text model with its tokenizer."""

# ruff: noqa: RUF001 letters that look like others are meant here

from __future__ import annotations

import random
import sys
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

SMALLEST_SCRIPT = 32  # characters; smaller groups are mostly symbols
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


@lru_cache(maxsize=1)
def _scripts() -> list[str]:
    """The characters of each script, named by the first word of their names, largest first.

    Characters without names, such as controls and unassigned ones, are grouped by category.
    """
    scripts: dict[str, list[str]] = {}
    for character in map(chr, range(sys.maxunicode + 1)):
        category = unicodedata.category(character)
        if category != "Cs":  # surrogates are not characters
            name = unicodedata.name(character, category).partition(" ")[0]
            scripts.setdefault(name, []).append(character)
    large = [characters for characters in scripts.values() if len(characters) >= SMALLEST_SCRIPT]
    return ["".join(characters) for characters in sorted(large, key=len, reverse=True)]


def difficult_strings(
    count: int, seed: int, literals: Sequence[str], pieces: Sequence[str]
) -> list[str]:
    """Strings of all scripts, the same for the same arguments.

    Args:
        literals: added tokens, put into every fourth string, some of them damaged.
        pieces: of the vocabulary, which words are composed of.
    """
    source = random.Random(seed)
    found = ["", " ", "\t\n", "\0", "\u200b", "\u0301", *literals]
    scripts = _scripts()
    while len(found) < count:
        text = _text(source, scripts[len(found) % len(scripts)], pieces)
        if literals and source.random() < 0.25:
            literal = source.choice(literals)
            damaged = (literal.lower(), literal[:-1], literal[1:], literal * 2)
            place = source.randint(0, len(text))
            text = text[:place] + source.choice((literal, literal, *damaged)) + text[place:]
        found.append(text)
    return found[:count]


def _text(source: random.Random, script: str, pieces: Sequence[str]) -> str:
    """Words joined by blanks, punctuation or nothing."""
    parts: list[str] = []
    for _ in range(source.choices((1, 3, 8, 40, 300), (30, 30, 30, 8, 2))[0]):
        kind = source.random()
        if kind < 0.05:
            parts.append(source.choice(SENTENCES))
        elif kind < 0.5:
            parts += source.choices(pieces, k=source.randint(1, 4))
        # around the largest number of characters of a word that is not [UNK]
        longest = 130 if kind > 0.98 else 12
        if not 0.1 < kind < 0.45:
            for _ in range(source.randint(1, longest)):
                script = source.choice(_scripts()) if source.random() < 0.05 else script
                parts.append(source.choice(script))
                if source.random() < 0.1:
                    parts.append(source.choice(JOINERS))
        parts.append(source.choice((*BLANKS, "", " ", *PUNCTUATION)))
    text = "".join(parts)
    return text.title() if source.random() < 0.1 else text
