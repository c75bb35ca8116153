"""Inputs of the golden tests: texts, a tokenizer, a BERT by formula, and the command line.

Nothing here imports the packages under test.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
LABELS = ("angry", "calm", "glad")
MAX_LENGTH = 24
KEYWORDS = {
    "angry": ("broken", "awful", "refund", "late", "never", "torn", "worst", "rude"),
    "calm": ("question", "when", "size", "colour", "order", "number", "which", "open"),
    "glad": ("thanks", "great", "love", "perfect", "happy", "lovely", "best", "quick"),
}
FILLERS = ("the", "a", "my", "it", "is", "was", "this", "shop", "parcel", "shoe", "lamp", "and")
# Pieces that no text here uses, augmented ones included: what a cut vocabulary may lose.
UNUSED = ("##ology", "##ness", "##ment", "##ship", "##ward", "##hood", "##ling", "##esque")
VOCABULARY = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
    *(word for words in KEYWORDS.values() for word in words),
    *FILLERS,
    *UNUSED,
    *"bcdefghijklmnopqrstuvwxyz0123456789.,!?'",
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"),
)  # fmt: skip


def factory(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SERVING_")}
    return subprocess.run(
        [sys.executable, "-m", "factory", *map(str, arguments)],
        cwd=ROOT,
        env={**kept, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def numbers(name: str, *shape: int) -> NDArray[np.float64]:
    """Numbers from -1 to 1 that look random and are the same on every machine.

    The integer mixing of splitmix64 on the name's bytes and each number's position.
    """
    start = int.from_bytes(name.encode()[-7:], "big") + 31 * sum(name.encode())
    state = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
    state = (state + np.uint64(start)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return ((state >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0).reshape(shape)


def texts(name: str, count: int) -> list[tuple[str, str]]:
    """Different texts of 3 to 10 words with the label whose words they hold."""
    rows: dict[str, str] = {}
    for row, dice in enumerate(numbers(name, 20 * count, 13)):
        label = LABELS[row % len(LABELS)]
        drawn = ((dice + 1) / 2).tolist()
        words = [_pick(FILLERS, number) for number in drawn[: 1 + int(drawn[12] * 8)]]
        for place, number in ((drawn[8], drawn[9]), (drawn[10], drawn[11])):
            words.insert(int(place * (len(words) + 1)), _pick(KEYWORDS[label], number))
        rows.setdefault(" ".join(words), label)
        if len(rows) == count:
            break
    assert len(rows) == count
    return list(rows.items())


def write_tsv(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Write texts with labels as a recipe reads them."""
    lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def save_teacher(directory: Path) -> None:
    """Save a BERT, 4 layers and 128 wide, whose weights are `numbers`."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    fields: dict[str, Any] = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 160,
        "max_position_embeddings": 32,
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: number for number, label in enumerate(LABELS)},
    }
    model = BertForSequenceClassification(BertConfig(**fields)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = numbers(name, *parameter.shape)
            if parameter.ndim == 1:  # norms scale around 1, biases around 0
                values = values * 0.1 + name.endswith("LayerNorm.weight")
            elif "embeddings" in name:
                values = values * (0.3 if "word" in name else 0.06)
            else:
                values = values * 1.2 / parameter.shape[1] ** 0.5
            parameter.copy_(torch.from_numpy(values))
        model.classifier.weight.mul_(4)
        # every label is the answer for some texts
        model.classifier.bias.copy_(torch.tensor([0.66, 2.85, 2.9]))
    model.save_pretrained(directory)

    ids = {piece: number for number, piece in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(piece, ids[piece]) for piece in ("[CLS]", "[SEP]")],
    )
    BertTokenizerFast(tokenizer_object=tokenizer).save_pretrained(directory)
    return model


def torch_logits(folder: Path, rows: Sequence[str]) -> NDArray[np.float32]:
    """What plain transformers answers from a folder, one text at a time."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    with torch.inference_mode():
        for text in rows:
            batch = tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
            found.append(model(**batch).logits[0].numpy())
    return np.stack(found)


def onnx_logits(bundle: Path, file: str, rows: Sequence[str]) -> NDArray[np.float32]:
    """What a bundle's ONNX file answers on the bundle's own tokens, one text at a time."""
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.no_padding()
    session = onnxruntime.InferenceSession(bundle / file, providers=["CPUExecutionProvider"])
    found = []
    for text in rows:
        encoded = tokenizer.encode(text)
        feed = {
            "input_ids": encoded.ids,
            "attention_mask": encoded.attention_mask,
            "token_type_ids": encoded.type_ids,
        }
        (logits,) = session.run(None, {k: np.array([v], np.int64) for k, v in feed.items()})
        found.append(logits[0])
    return np.stack(found)


def student_folder(store: Path, bundle: Path) -> Path:
    """The plain student behind a bundle: the store's one model of its configuration and pieces."""
    (found,) = [
        weights.parent
        for weights in store.glob("*/model/model.safetensors")
        if all(
            (weights.parent / name).read_bytes() == (bundle / name).read_bytes()
            for name in ("config.json", "tokenizer.json")
        )
    ]
    return found


def _pick(words: Sequence[str], number: float) -> str:
    return words[min(int(number * len(words)), len(words) - 1)]
