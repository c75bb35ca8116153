"""KServe's Open Inference Protocol v2 over REST, binary tensors included."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from serving.asking import Asked, ProtocolError, check_limits, decode
from serving.predictor import Prediction, Predictor
from serving.settings import Settings
from serving.tokenization import Encoded

TEXTS = ("text", "text_pair")
IDS = "input_ids"
MASK = "attention_mask"
TYPES = "token_type_ids"
EXTENSIONS = ["binary_tensor_data"]
LENGTH_HEADER = "Inference-Header-Content-Length"


class InputTensor(msgspec.Struct, frozen=True):
    """One input; its data stands here, or behind the JSON when `binary_data_size` says so."""

    name: str
    shape: list[int]
    datatype: str
    data: Any = UNSET
    parameters: dict[str, Any] = {}


class OutputWish(msgspec.Struct, frozen=True):
    """One output by name."""

    name: str
    parameters: dict[str, Any] = {}


class InferBody(msgspec.Struct, frozen=True):
    """The JSON part of a request."""

    inputs: list[InputTensor]
    id: str | UnsetType = UNSET
    outputs: list[OutputWish] = []
    parameters: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What is asked: texts, or inputs already tokenized elsewhere."""

    body: InferBody
    asked: Asked
    encoded: list[Encoded] | None


def read_infer(
    content: bytes, json_bytes: str | None, predictor: Predictor, settings: Settings
) -> InferRequest:
    """Decode and check an inference request.

    Args:
        json_bytes: the header that says how much of the content is JSON; None: all of it.

    Raises:
        ProtocolError: 400 not what the protocol describes, 413 too many texts, 422 not what this
            model takes.
    """
    size = _header_number(json_bytes, len(content))
    body = decode(content[:size], InferBody)
    tensors = _read_tensors(body.inputs, memoryview(content)[size:])
    names = sorted(tensors)
    texts = list(TEXTS) if predictor.text_pair else [TEXTS[0]]
    if IDS in tensors:
        if unknown := sorted(set(names) - {IDS, MASK, TYPES}):
            raise ProtocolError(422, f"{', '.join(unknown)}: not beside {IDS}")
        encoded = _encoded(tensors, predictor)
        check_limits(IDS, ["tokens"] * len(encoded), settings)
        return InferRequest(body, Asked([""] * len(encoded)), encoded)
    if names != sorted(texts):
        raise ProtocolError(
            422, f"inputs are {names}; {predictor.name} takes {' and '.join(texts)}, or {IDS}"
        )
    columns = [[str(item) for item in tensors[name].reshape(-1)] for name in texts]
    if len({len(column) for column in columns}) > 1:
        raise ProtocolError(422, "text and text_pair have different lengths")
    pairs = [(one, two) for one, two in zip(columns[0], columns[-1], strict=True)]
    inputs = pairs if predictor.text_pair else columns[0]
    check_limits("text", inputs, settings)
    return InferRequest(body, Asked(inputs), None)


def write_infer(
    predictor: Predictor, predictions: Sequence[Prediction], body: InferBody
) -> tuple[bytes, dict[str, str]]:
    """The content of a 200, and the headers it needs.

    Raises:
        ProtocolError: 422, an output that this model does not have.
    """
    tensors = _outputs(predictor, predictions)
    wishes = body.outputs or [OutputWish(name) for name in tensors]
    described, behind = [], []
    for wish in wishes:
        if wish.name not in tensors:
            raise ProtocolError(422, f"output {wish.name}: there are {', '.join(tensors)}")
        datatype, array = tensors[wish.name]
        one: dict[str, Any] = {"name": wish.name, "datatype": datatype, "shape": list(array.shape)}
        if wish.parameters.get("binary_data", body.parameters.get("binary_data_output", False)):
            behind.append(_to_bytes(datatype, array))
            one["parameters"] = {"binary_data_size": len(behind[-1])}
        else:
            one["data"] = array.reshape(-1).tolist()
        described.append(one)
    answer = {
        "model_name": predictor.name,
        "model_version": predictor.version,
        **({} if isinstance(body.id, UnsetType) else {"id": body.id}),
        "outputs": described,
    }
    content = msgspec.json.encode(answer)
    if not behind:
        return content, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(len(content))}
    return b"".join([content, *behind]), headers


def describe_model(predictor: Predictor) -> dict[str, Any]:
    """The model's metadata; -1 stands for any size."""
    texts = TEXTS if predictor.text_pair else TEXTS[:1]
    inputs = [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in texts]
    inputs += [
        {"name": name, "datatype": "INT64", "shape": [-1, -1]} for name in (IDS, MASK, TYPES)
    ]
    outputs = [
        {"name": name, "datatype": datatype, "shape": [-1, *array.shape[1:]]}
        for name, (datatype, array) in _outputs(predictor, []).items()
    ]
    return {
        "name": predictor.name,
        "versions": [predictor.version],
        "platform": "onnxruntime_onnx",
        "inputs": inputs,
        "outputs": outputs,
    }


def _outputs(
    predictor: Predictor, predictions: Sequence[Prediction]
) -> dict[str, tuple[str, np.ndarray[Any, Any]]]:
    """Every output by name: its datatype and its rows."""
    shape = (len(predictions), len(predictor.labels))
    scores = np.array([item.scores for item in predictions], dtype=np.float32).reshape(shape)
    logits = np.array([item.logits for item in predictions], dtype=np.float32).reshape(shape)
    found: dict[str, tuple[str, np.ndarray[Any, Any]]] = {}
    if predictor.task == "classification":
        best = [predictor.labels[int(np.argmax(item.scores))] for item in predictions]
        found["label"] = ("BYTES", np.array(best, dtype=object))
    if predictor.task == "multilabel":
        applies = np.array([item.applies for item in predictions], dtype=bool).reshape(shape)
        found["applies"] = ("BOOL", applies)
    return {**found, "scores": ("FP32", scores), "logits": ("FP32", logits)}


def _header_number(text: str | None, size: int) -> int:
    if text is None:
        return size
    if not text.isascii() or not text.isdigit() or int(text) > size:
        raise ProtocolError(400, f"{LENGTH_HEADER} is {text!r}; the body has {size} bytes")
    return int(text)


def _read_tensors(
    inputs: Sequence[InputTensor], behind: memoryview
) -> dict[str, np.ndarray[Any, Any]]:
    """Each input as an array of its shape: of str, or of int64."""
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for item in inputs:
        size = item.parameters.get("binary_data_size")
        if isinstance(size, int):
            if not 0 <= size <= len(behind):
                raise ProtocolError(400, f"{item.name}: {size} bytes are not there")
            values = _from_bytes(item, bytes(behind[:size]))
            behind = behind[size:]
        elif isinstance(item.data, list):
            values = _from_json(item)
        else:
            raise ProtocolError(400, f"{item.name} has no data")
        if not values.size:
            raise ProtocolError(422, f"{item.name} is empty; give at least one")
        if any(length < 0 for length in item.shape) or values.size != math.prod(item.shape):
            raise ProtocolError(
                400, f"{item.name} has {values.size} numbers or texts for shape {item.shape}"
            )
        tensors[item.name] = values.reshape(item.shape)
    if len(behind):
        raise ProtocolError(400, f"{len(behind)} bytes behind the JSON belong to no input")
    return tensors


def _from_json(item: InputTensor) -> np.ndarray[Any, Any]:
    flat: list[Any] = item.data
    while flat and isinstance(flat[0], list):
        if not all(isinstance(part, list) for part in flat):
            raise ProtocolError(400, f"{item.name}: data is nested unevenly")
        flat = [element for part in flat for element in part]
    kind: type = str if item.datatype == "BYTES" else int
    if item.datatype not in ("BYTES", "INT64", "INT32"):
        raise ProtocolError(422, f"{item.name}: {item.datatype} is none of BYTES, INT64, INT32")
    if not all(type(element) is kind for element in flat):
        raise ProtocolError(400, f"{item.name}: data is not {item.datatype}")
    try:
        return np.array(flat, dtype=object if kind is str else np.int64)
    except OverflowError as error:
        raise ProtocolError(400, f"{item.name}: a number is too large") from error


def _from_bytes(item: InputTensor, content: bytes) -> np.ndarray[Any, Any]:
    """Numbers little-endian; texts each behind their length in four bytes."""
    widths: Mapping[str, str] = {"INT64": "<i8", "INT32": "<i4"}
    if item.datatype in widths:
        if len(content) % np.dtype(widths[item.datatype]).itemsize:
            raise ProtocolError(400, f"{item.name}: {len(content)} bytes are no {item.datatype}")
        return np.frombuffer(content, dtype=widths[item.datatype]).astype(np.int64)
    if item.datatype != "BYTES":
        raise ProtocolError(422, f"{item.name}: {item.datatype} is none of BYTES, INT64, INT32")
    texts: list[str] = []
    position = 0
    while position < len(content):
        start = position + 4
        position = start + int.from_bytes(content[position:start], "little")
        try:
            if position > len(content):
                raise ValueError("a length points behind the end")
            texts.append(content[start:position].decode("utf-8"))
        except ValueError as error:
            raise ProtocolError(400, f"{item.name}: {error}") from error
    return np.array(texts, dtype=object)


def _to_bytes(datatype: str, array: np.ndarray[Any, Any]) -> bytes:
    if datatype != "BYTES":
        return array.astype("<f4" if datatype == "FP32" else "?").tobytes()
    texts = [str(item).encode("utf-8") for item in array.reshape(-1)]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _encoded(tensors: Mapping[str, np.ndarray[Any, Any]], predictor: Predictor) -> list[Encoded]:
    """Rows of token ids without their padding."""
    ids = tensors[IDS]
    mask = tensors.get(MASK, np.ones_like(ids))
    types = tensors.get(TYPES, np.zeros_like(ids))
    if ids.ndim != 2 or mask.shape != ids.shape or types.shape != ids.shape:
        raise ProtocolError(422, f"{IDS}, {MASK}, {TYPES}: give one shape, (texts, tokens)")
    if ids.dtype == object or mask.dtype == object or types.dtype == object:
        raise ProtocolError(422, f"{IDS}, {MASK} and {TYPES} are INT64 or INT32")
    lengths = mask.sum(axis=1)
    prefix = np.arange(ids.shape[1])[None, :] < lengths[:, None]
    if not np.array_equal(mask, prefix) or not (lengths > 0).all():
        raise ProtocolError(422, f"{MASK} is not ones followed by zeros in every row")
    if ids.min() < 0 or ids.max() >= predictor.pieces or types.min() < 0 or types.max() > 1:
        raise ProtocolError(422, f"{IDS} go from 0 to {predictor.pieces - 1}, {TYPES} are 0 or 1")
    if lengths.max() > predictor.manifest.max_length:
        raise ProtocolError(
            422, f"{int(lengths.max())} tokens, at most {predictor.manifest.max_length}"
        )
    return [
        Encoded(row[:length].tolist(), kinds[:length].tolist(), truncated=False)
        for row, kinds, length in zip(ids, types, lengths.tolist(), strict=True)
    ]
