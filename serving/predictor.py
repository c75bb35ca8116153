"""A bundle opened for inference: texts in, logits or scores out; knows nothing of HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from serving.batching import near_the_shortest
from serving.bundle import TOKENIZER_NAME, Manifest, read_manifest, verify_files
from serving.errors import (
    BundleError,
    InferenceError,
    InputError,
    MissingDependencyError,
    ProviderError,
)
from serving.tokenization import Encoded, Inputs, TextTokenizer

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Padded tokens per run on a CPU: past about this many, longer runs only add padding.
BATCH_TOKENS = 256
MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_REBUILD = "build the bundle again"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer: scores aligned with the labels; tokens read, and whether some were cut off.

    `logits` are what the scores come from. `applies`, aligned too, says which labels a multilabel
    model decided for; else it is None.
    """

    scores: tuple[float, ...]
    tokens: int
    truncated: bool
    logits: tuple[float, ...]
    applies: tuple[bool, ...] | None = None


class Predictor:
    """One bundle with its tokenizer and session; safe to call from several threads."""

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: TextTokenizer,
        session: InferenceSession,
        batch_tokens: int,
    ) -> None:
        self.manifest = manifest
        self.name = manifest.name
        self.version = manifest.version
        self.task = manifest.task
        self.labels = tuple(manifest.labels)
        self.thresholds = None if manifest.thresholds is UNSET else tuple(manifest.thresholds)
        self.text_pair = manifest.text_pair
        self.pieces = tokenizer.pieces
        self.pieces_of = tokenizer.cut
        self._tokenizer = tokenizer
        self._session = session
        self.batch_tokens = batch_tokens

    @classmethod
    def open(
        cls,
        directory: Path | str,
        *,
        threads: int = 1,
        provider: str = "CPUExecutionProvider",
        verify: bool = True,
        batch_tokens: int = BATCH_TOKENS,
    ) -> Predictor:
        """Verify and load a bundle.

        Args:
            directory: the bundle.
            threads: threads within one run of the model.
            provider: the execution provider, by onnxruntime's name; never replaced silently.
            verify: compare the files with the manifest's checksums first.
            batch_tokens: padded tokens per run, for models whose answers do not depend on
                the other texts of a run.

        Raises:
            BundleError: the files, or the graph inside, differ from the manifest.
            ProviderError: the provider is not available.
            MissingDependencyError: onnxruntime is not installed.
        """
        directory = Path(directory)
        manifest = read_manifest(directory)
        if verify:
            verify_files(directory, manifest)
        tokenizer = TextTokenizer.load(
            directory / TOKENIZER_NAME, manifest.max_length, text_pair=manifest.text_pair
        )
        model_path = directory / manifest.model.file
        session = _open_session(model_path, threads, provider)
        _check_graph(model_path, session, manifest)
        predictor = cls(manifest, tokenizer, session, batch_tokens)
        predictor._check_outputs(model_path)
        return predictor

    def tokenize(self, inputs: Inputs) -> list[Encoded]:
        """Token ids of each input, truncated to the bundle's max_length, not padded.

        Raises:
            InputError: an input is not what this model takes.
        """
        self._check_inputs(inputs)
        return self._tokenizer.encode(inputs)

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """Raw outputs in input order: (inputs, labels).

        Raises:
            InputError: an input is not what this model takes.
            InferenceError: the model failed.
        """
        return self._encoded_logits(self.tokenize(inputs))

    def predict(self, inputs: Inputs) -> list[Prediction]:
        """Probabilities per label, or the value of a regression, in input order.

        The probabilities of a classification add up to 1; those of a multilabel model each stand
        for themselves, and a label applies from its threshold on.

        Raises:
            InputError: an input is not what this model takes.
            InferenceError: the model failed or answered something that is not finite.
        """
        encoded = self.tokenize(inputs)
        return self._predictions(encoded, self._encoded_logits(encoded))

    def answer(self, batch: Sequence[Encoded]) -> list[Prediction]:
        """As `predict`, for inputs already tokenized, in one run of the model.

        Raises:
            InferenceError: the model failed or answered something that is not finite.
        """
        return self._predictions(batch, self._run(batch))

    def _predictions(
        self, encoded: Sequence[Encoded], logits: NDArray[np.float32]
    ) -> list[Prediction]:
        if not np.isfinite(logits).all():
            raise InferenceError("the model answered a value that is not finite")
        if self.thresholds is None:
            scores = softmax(logits) if self.task == "classification" else logits.astype(np.float64)
            decided: list[tuple[bool, ...] | None] = [None] * len(encoded)
        else:
            scores = sigmoid(logits)
            decided = [tuple(row) for row in (scores >= np.array(self.thresholds)).tolist()]
        return [
            Prediction(tuple(row), len(item), item.truncated, tuple(raw), applies)
            for row, item, raw, applies in zip(
                scores.tolist(), encoded, logits.tolist(), decided, strict=True
            )
        ]

    def warm_up(self) -> None:
        """Run the shortest and the longest input the model may see.

        Raises:
            InferenceError: the model cannot take its own max_length.
        """
        for length in (1, self.manifest.max_length):
            ids = [self._tokenizer.pad_id] * length
            self._run([Encoded(ids, [0] * length, truncated=False)])

    def _check_inputs(self, inputs: Inputs) -> None:
        """Refuse what the tokenizer would misread: a pair for a text, or the reverse."""
        if isinstance(inputs, str):
            raise InputError("give a list of inputs, not one text")
        for index, item in enumerate(inputs):
            parts = item if self.text_pair and isinstance(item, tuple) else (item,)
            wanted = 2 if self.text_pair else 1
            if len(parts) != wanted or not all(isinstance(part, str) for part in parts):
                kind = "pairs of texts" if self.text_pair else "single texts"
                raise InputError(f"input {index}: {self.name} takes {kind}")

    def _encoded_logits(self, encoded: Sequence[Encoded]) -> NDArray[np.float32]:
        """Run every input and put the answers back in order."""
        result = np.empty((len(encoded), len(self.labels)), dtype=np.float32)
        for positions in self._micro_batches([len(item) for item in encoded]):
            result[positions] = self._run([encoded[position] for position in positions])
        return result

    def _micro_batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Positions that run together: near in length, about batch_tokens when padded."""
        budget = self.batch_tokens if self.manifest.model.neighbour_independent else 0
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        while order:
            # a run holds no more texts than tokens
            shortest = [lengths[position] for position in order[: budget + 1]]
            count = near_the_shortest(shortest, budget)
            yield order[:count]
            del order[:count]

    def _run(self, batch: Sequence[Encoded]) -> NDArray[np.float32]:
        """One run of the model on a padded batch: (batch, labels)."""
        shape = (len(batch), max(len(item) for item in batch))
        arrays = {
            "input_ids": np.full(shape, self._tokenizer.pad_id, dtype=np.int64),
            "attention_mask": np.zeros(shape, dtype=np.int64),
            "token_type_ids": np.zeros(shape, dtype=np.int64),
        }
        for row, item in enumerate(batch):
            arrays["input_ids"][row, : len(item)] = item.input_ids
            arrays["attention_mask"][row, : len(item)] = 1
            arrays["token_type_ids"][row, : len(item)] = item.token_type_ids
        feed = {name: arrays[name] for name in self.manifest.model.inputs}
        try:
            (output,) = self._session.run([self.manifest.model.output], feed)
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise InferenceError(
                f"onnxruntime failed on a batch of {shape[0]} x {shape[1]} tokens: {error}"
            ) from error
        return np.asarray(output, dtype=np.float32)

    def _check_outputs(self, model_path: Path) -> None:
        """Run inputs of both extreme lengths: the graph may leave its shapes open.

        Raises:
            BundleError: the model fails on one of them, or has another number of labels.
        """
        try:
            self.warm_up()
            output = self._run(self._tokenizer.encode([("", "")] if self.text_pair else [""]))
        except InferenceError as error:
            raise BundleError(
                model_path, [f"the model does not run ({error})"], _REBUILD
            ) from error
        if output.shape != (1, len(self.labels)):
            raise BundleError(
                model_path,
                [
                    f"one text gives an output of shape {output.shape}, "
                    f"the manifest lists {len(self.labels)} labels"
                ],
                _REBUILD,
            )


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities of each row in float64: (rows, labels)."""
    wide = logits.astype(np.float64)
    exponentials = np.exp(wide - wide.max(axis=-1, keepdims=True, initial=-np.inf))
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """The probability of each label by itself in float64: (rows, labels)."""
    # by tanh, which no large logit overflows
    probabilities: NDArray[np.float64] = 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))
    return probabilities


def _open_session(model_path: Path, threads: int, provider: str) -> InferenceSession:
    """An onnxruntime session on exactly the provider asked for."""
    # From 1.32 on it would look for a place to keep an id for its maker's statistics.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "onnxruntime is not installed; run: pip install 'tinybert-factory[cpu]'"
        ) from error
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise ProviderError(
            f"{provider} is not in this onnxruntime (it has {', '.join(available)}); "
            "choose one of these, or install 'tinybert-factory[gpu]' for CUDA"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Threads that spin while idle take the CPU from the other inference threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Patterns are kept per input shape, and shapes vary with every text.
    options.enable_mem_pattern = False
    options.log_severity_level = 4  # failures arrive as exceptions; no second copy on stderr
    try:
        session = onnxruntime.InferenceSession(str(model_path), options, providers=[provider])
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        raise BundleError(
            model_path, [f"onnxruntime cannot load it ({error})"], _REBUILD
        ) from error
    actual = session.get_providers()[0]
    if actual != provider:
        raise ProviderError(
            f"asked for {provider}, onnxruntime chose {actual}; check the driver and libraries "
            f"{provider} needs, or ask for {actual}"
        )
    return session


def _check_graph(model_path: Path, session: InferenceSession, manifest: Manifest) -> None:
    """Compare the graph's names with the manifest's.

    Raises:
        BundleError: other inputs, other types, or no such output.
    """
    problems = []
    types = {item.name: item.type for item in session.get_inputs()}
    outputs = [item.name for item in session.get_outputs()]
    expected = manifest.model.inputs
    if sorted(types) != sorted(expected):
        problems.append(f"graph inputs are {sorted(types)}, the manifest says {sorted(expected)}")
    if unknown := sorted(set(types) - set(MODEL_INPUTS)):
        problems.append(f"graph inputs {unknown} are none of {', '.join(MODEL_INPUTS)}")
    for name, kind in types.items():
        if kind != "tensor(int64)":
            problems.append(f"graph input {name} is {kind}, not tensor(int64)")
    if manifest.model.output not in outputs:
        problems.append(f"graph outputs are {outputs}, the manifest says {manifest.model.output!r}")
    if problems:
        raise BundleError(model_path, problems, _REBUILD)
