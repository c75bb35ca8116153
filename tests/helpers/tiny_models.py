"""A real BERT of a few kilobytes, its tokenizer and texts it can learn, all made in code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from factory.data.dataset import Dataset, Split
from factory.models.classifier import TorchClassifier, load_torch_classifier
from factory.models.encoding import collate, encode_inputs, epoch_order

LABELS = ("angry", "calm", "glad")
MAX_LENGTH = 24
KEYWORDS = {
    "angry": ("broken", "awful", "refund", "late", "never"),
    "calm": ("question", "when", "size", "colour", "order"),
    "glad": ("thanks", "great", "love", "perfect", "happy"),
}
FILLERS = ("the", "a", "my", "it", "is", "was", "this", "shop", "parcel", "shoe", "lamp", "and")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = (
    *SPECIAL,
    *(word for words in KEYWORDS.values() for word in words),
    *FILLERS,
    *"bcdefghijklmnopqrstuvwxyz0123456789.,!?'",
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"),
)


def tiny_tokenizer(vocabulary: Sequence[str] = VOCABULARY) -> BertTokenizerFast:
    """A lower-casing WordPiece tokenizer."""
    numbers = {piece: number for number, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(piece, numbers[piece]) for piece in ("[CLS]", "[SEP]")],
    )
    return BertTokenizerFast(tokenizer_object=tokenizer)


def tiny_bert(
    labels: Sequence[str] = LABELS,
    *,
    seed: int = 1,
    attention: str = "sdpa",
    **changes: Any,
) -> BertForSequenceClassification:
    """A random classifier in eval mode: 3 layers, 24 wide, 4 heads, 48 feed-forward neurons.

    Args:
        changes: any field of `BertConfig`.
    """
    fields: dict[str, Any] = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 32,
        # 0.02 is for 768 wide; at 24 wide it would leave every layer close to the identity
        "initializer_range": 0.1,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = BertConfig(**{**fields, **changes}, attn_implementation=attention)
        model = BertForSequenceClassification(config)
        with torch.no_grad():  # biases and norms start at 0 and 1, where mistakes with them hide
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def save_tiny(model: Any, directory: Path) -> Path:
    """Save a model with the tiny tokenizer as a folder in the hub's format."""
    model.save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


def tiny_classifier(model: Any) -> TorchClassifier:
    """A model in memory with the tiny tokenizer."""
    return TorchClassifier(model, tiny_tokenizer(), MAX_LENGTH)


def tiny_split(name: str, rows: int, seed: int) -> Split:
    """Short texts of 2 to 11 words; one or two words of a label's own decide it."""
    random = np.random.default_rng(seed)
    texts, targets = [], []
    for row in range(rows):
        target = row % len(LABELS)
        own = random.choice(KEYWORDS[LABELS[target]], size=random.integers(1, 3))
        rest = random.choice(FILLERS, size=random.integers(1, 10))
        words = random.permutation(np.concatenate([own, rest]))
        texts.append(" ".join(words.tolist()))
        targets.append(target)
    return Split(name, texts, None, targets)


def tiny_dataset(train_rows: int = 210, dev_rows: int = 90) -> Dataset:
    """Three balanced classes that words decide."""
    return Dataset(
        task="classification",
        labels=LABELS,
        train=tiny_split("train", train_rows, seed=11),
        dev=tiny_split("dev", dev_rows, seed=12),
        test=None,
    )


def tiny_regression(train_rows: int = 96, dev_rows: int = 48) -> Dataset:
    """Pairs of texts with a number each: 2 for an angry first text, 0 for calm, -2 for glad."""

    def as_pairs(split: Split) -> Split:
        second = [f"my {FILLERS[len(text) % len(FILLERS)]}" for text in split.texts]
        return Split(split.name, split.texts, second, [2.0 - 2.0 * t for t in split.targets])

    plain = tiny_dataset(train_rows, dev_rows)
    return Dataset("regression", ("value",), as_pairs(plain.train), as_pairs(plain.dev), None)


def tiny_multilabel(train_rows: int = 240, dev_rows: int = 90) -> Dataset:
    """Texts with the words of none, one or two of the three labels, all of which apply."""

    def split(name: str, rows: int, seed: int) -> Split:
        random = np.random.default_rng(seed)
        texts, targets = [], []
        for row in range(rows):
            target = sorted(random.choice(len(LABELS), size=(0, 1, 1, 2)[row % 4], replace=False))
            own = [random.choice(KEYWORDS[LABELS[label]]) for label in target]
            rest = random.choice(FILLERS, size=random.integers(2, 8))
            words = random.permutation([*own, *rest])
            texts.append(" ".join([*words.tolist(), str(row % 10), name[0]]))
            targets.append(tuple(int(label) for label in target))
        return Split(name, texts, None, targets)

    train, dev = split("train", train_rows, 21), split("dev", dev_rows, 22)
    return Dataset("multilabel", LABELS, train, dev, split("test", dev_rows, 23))


def train_plainly(model: Any, split: Split, epochs: int = 6) -> None:
    """Fit a model on hard targets with a bare loop, independent of the code under test."""
    rows = encode_inputs(tiny_tokenizer(), split.inputs(), MAX_LENGTH)
    numbers = isinstance(split.targets[0], float)
    targets = torch.tensor(split.targets)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(epochs):
        for positions in epoch_order(rows.lengths, 16, 0, epoch):
            batch = collate(rows, positions, "cpu")
            logits = model(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits
            wanted = targets[batch.rows]
            if numbers:
                loss = functional.mse_loss(logits[:, 0], wanted)
            else:
                loss = functional.cross_entropy(logits, wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()


def save_trained(directory: Path, dataset: Dataset) -> Path:
    """A folder with a tiny BERT that has learned the data set."""
    model = tiny_bert(dataset.labels)
    train_plainly(model, dataset.train)
    return save_tiny(model, directory)


def open_tiny(directory: Path) -> TorchClassifier:
    """A saved tiny model."""
    return load_torch_classifier(directory, MAX_LENGTH)


def accuracy(classifier: TorchClassifier, split: Split) -> float:
    """Share of the rows whose largest logit stands at the row's class."""
    predicted = classifier.logits(split.inputs()).argmax(axis=1)
    return float((predicted == np.array(split.targets)).mean())
