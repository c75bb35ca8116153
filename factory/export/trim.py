"""A saved student with fewer word pieces: the same logits for text whose pieces are all kept.

WordPiece repeatedly takes the longest piece that fits. With fewer pieces, a text whose pieces are
all kept is tokenized as before, since no longer piece is added. A word that ends as `[UNK]` has
matched pieces up to where it failed; `needed_pieces` counts those too, because without one of them
the word might no longer be `[UNK]`.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from factory.errors import VocabularyError

EMBEDDINGS = "bert.embeddings.word_embeddings.weight"
WEIGHTS_FILE = "model.safetensors"
BATCH_TEXTS = 4096


def needed_pieces(model_directory: Path, texts: Iterable[str]) -> Counter[str]:
    """Count the pieces that tokenizing the texts takes, including those before an `[UNK]`.

    Args:
        texts: text to tokenize as before: training rows, unlabelled and augmented text.

    Raises:
        VocabularyError: the tokenizer is not a WordPiece tokenizer.
    """
    tokenizer = _open_tokenizer(model_directory)
    vocabulary = tokenizer.get_vocab()
    settings = _wordpiece(model_directory)["model"]
    unknown = vocabulary[settings["unk_token"]]
    counts: Counter[int] = Counter()
    partial: Counter[str] = Counter()
    waiting = iter(texts)
    while batch := list(islice(waiting, BATCH_TEXTS)):
        for text, encoding in zip(batch, tokenizer.encode_batch_fast(batch), strict=True):
            counts.update(encoding.ids)
            if unknown in encoding.ids:
                for word in _words(tokenizer, text):
                    partial.update(_taken_before_failing(word, vocabulary, settings))
    return Counter({tokenizer.id_to_token(number): n for number, n in counts.items()}) + partial


def choose_pieces(model_directory: Path, counts: Mapping[str, int], general: int) -> list[str]:
    """The pieces to keep, in the order of the vocabulary.

    These are the ones in `counts`, special and added tokens, every single character and its
    continuation, and the first others of the vocabulary, which published BERTs order by frequency.

    Args:
        counts: of `needed_pieces`.
        general: number of the others to keep, for unseen text.

    Raises:
        VocabularyError: the tokenizer is not a WordPiece tokenizer.
    """
    data = _wordpiece(model_directory)
    order = _order(data)
    settings = data["model"]
    prefix: str = settings["continuing_subword_prefix"]
    added = {entry["content"] for entry in data["added_tokens"]}
    base = added | {settings["unk_token"]}
    base |= {piece for piece in order if len(piece.removeprefix(prefix)) == 1}
    base |= order.keys() & counts.keys()
    # published vocabularies have placeholders such as [unused1]
    others = (piece for piece in order if piece not in base and not piece.startswith("[unused"))
    kept = base.union(islice(others, general))
    return [piece for piece in order if piece in kept]


def trim_student(source: Path, target: Path, kept: Collection[str]) -> dict[str, Any]:
    """Write a copy of a student's folder that has only the pieces kept.

    Every file of a Hugging Face folder that holds token ids is rewritten: tokenizer.json,
    vocab.txt, tokenizer_config.json, config.json and the rows of the embedding table.

    Args:
        target: a folder that does not exist yet.

    Returns:
        Pieces before and after.

    Raises:
        VocabularyError: no WordPiece, no safetensors file, a piece the student does not have, or
            special tokens left out.
    """
    data = _wordpiece(source)
    order = _order(data)
    if foreign := sorted(set(kept) - set(order)):
        raise VocabularyError(f"{source}: the piece {foreign[0]!r} is not in the vocabulary")
    required = {entry["content"] for entry in data["added_tokens"]} | {data["model"]["unk_token"]}
    if missing := sorted(required - set(kept)):
        raise VocabularyError(f"{source}: {missing[0]} must be kept: the model needs it")
    old_ids = [number for piece, number in order.items() if piece in kept]
    new_ids = {old: new for new, old in enumerate(old_ids)}
    weights = source / WEIGHTS_FILE
    if not weights.is_file():
        raise VocabularyError(
            f"{source}: no {WEIGHTS_FILE}; save the student with save_pretrained before its "
            "vocabulary is trimmed"
        )
    shutil.copytree(source, target)
    _write_json(target / "tokenizer.json", _renumbered_tokenizer(data, new_ids))
    lines = "".join(f"{piece}\n" for piece in order if piece in kept)
    (target / "vocab.txt").write_text(lines, encoding="utf-8")
    _rewrite_configurations(target, new_ids)
    _cut_embeddings(target / WEIGHTS_FILE, old_ids)
    return {"pieces_before": len(order), "pieces": len(old_ids)}


def measure_trim(
    source: Path,
    target: Path,
    inputs: Sequence[str] | Sequence[tuple[str, str]],
    max_length: int,
) -> dict[str, Any]:
    """How a split is tokenized before and after, truncated to `max_length` tokens.

    Returns:
        rows; changed_rows, the share whose pieces differ; tokens and tokens_before per row;
        unknown and unknown_before, the share of `[UNK]` among the tokens.
    """
    unknown: str = _wordpiece(source)["model"]["unk_token"]
    facts: dict[str, Any] = {"rows": len(inputs)}
    read: list[list[list[str]]] = []
    for folder, suffix in ((source, "_before"), (target, "")):
        tokenizer = _open_tokenizer(folder)
        tokenizer.enable_truncation(max_length)
        rows = [encoding.tokens for encoding in tokenizer.encode_batch(list(inputs))]
        tokens = sum(map(len, rows))
        facts[f"tokens{suffix}"] = tokens / max(1, len(rows))
        facts[f"unknown{suffix}"] = sum(row.count(unknown) for row in rows) / max(1, tokens)
        read.append(rows)
    changed = sum(old != new for old, new in zip(*read, strict=True))
    return facts | {"changed_rows": changed / max(1, len(inputs))}


def _open_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    _wordpiece(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _wordpiece(folder: Path) -> dict[str, Any]:
    """The parsed tokenizer.json.

    Raises:
        VocabularyError: the file is missing, or describes another kind of tokenizer.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise VocabularyError(f"{file}: not found; trimming the vocabulary rewrites it")
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    kind = data["model"].get("type")
    if kind != "WordPiece":
        raise VocabularyError(
            f"{file}: a {kind} tokenizer; only the vocabulary of BERT's WordPiece can be trimmed; "
            "unset export.general_pieces"
        )
    return data


def _order(data: Mapping[str, Any]) -> dict[str, int]:
    """Every piece and added token with its id, by id."""
    pieces = dict(data["model"]["vocab"])
    pieces.update((entry["content"], entry["id"]) for entry in data["added_tokens"])
    order = sorted(pieces.items(), key=lambda item: item[1])
    if len({number for _, number in order}) != len(order):
        raise VocabularyError("tokenizer.json: two pieces share an id; the file is damaged")
    return dict(order)


def _words(tokenizer: Any, text: str) -> Iterator[str]:
    """The words that WordPiece splits, as normalized."""
    if tokenizer.normalizer is not None:
        text = tokenizer.normalizer.normalize_str(text)
    if tokenizer.pre_tokenizer is None:
        yield text
    else:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text):
            yield word


def _taken_before_failing(
    word: str, vocabulary: Mapping[str, int], settings: Mapping[str, Any]
) -> list[str]:
    """WordPiece tokens matched before the word became [UNK]; empty if it tokenized fully."""
    taken: list[str] = []
    start = 0
    if len(word) > settings["max_input_chars_per_word"]:
        return taken  # longer words are always [UNK]
    while start < len(word):
        prefix = settings["continuing_subword_prefix"] if start else ""
        for end in range(len(word), start, -1):
            if prefix + word[start:end] in vocabulary:
                taken.append(prefix + word[start:end])
                start = end
                break
        else:
            return taken
    return []


def _renumbered_tokenizer(data: Mapping[str, Any], new_ids: Mapping[int, int]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(json.dumps(data))
    vocabulary = result["model"]["vocab"]
    kept = {piece: new_ids[number] for piece, number in vocabulary.items() if number in new_ids}
    result["model"]["vocab"] = dict(sorted(kept.items(), key=lambda item: item[1]))
    for entry in result["added_tokens"]:
        entry["id"] = new_ids[entry["id"]]
    processor = result.get("post_processor") or {}
    for entry in processor.get("special_tokens", {}).values():  # TemplateProcessing
        entry["ids"] = [new_ids[number] for number in entry["ids"]]
    for name in ("sep", "cls"):  # BertProcessing
        if name in processor:
            processor[name][1] = new_ids[processor[name][1]]
    if result.get("padding"):
        result["padding"]["pad_id"] = new_ids[result["padding"]["pad_id"]]
    return result


def _rewrite_configurations(target: Path, new_ids: Mapping[int, int]) -> None:
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    config["vocab_size"] = len(new_ids)
    for name, value in config.items():
        if name.endswith("_token_id") and value is not None:
            config[name] = new_ids[value]
    _write_json(target / "config.json", config)
    file = target / "tokenizer_config.json"
    if file.is_file():
        settings = json.loads(file.read_text(encoding="utf-8"))
        added = settings.get("added_tokens_decoder", {})
        settings["added_tokens_decoder"] = {
            str(new_ids[int(number)]): entry for number, entry in added.items()
        }
        _write_json(file, settings)


def _cut_embeddings(file: Path, old_ids: Sequence[int]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(file)
    if EMBEDDINGS not in weights:
        raise VocabularyError(f"{file}: no {EMBEDDINGS}; this is not a BERT classifier")
    weights[EMBEDDINGS] = weights[EMBEDDINGS][list(old_ids)].contiguous()
    save_file(weights, file, metadata={"format": "pt"})


def _write_json(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
