"""A builder of ONNX nodes: it generates names and shares small constants."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

BOOL, INT32, INT64, FLOAT, STRING, DOUBLE = 9, 6, 7, 1, 8, 11  # onnx.TensorProto element types
MICROSOFT = "com.microsoft"
MACHINE_LEARNING = "ai.onnx.ml"


@dataclass(slots=True)
class Nodes:
    """Nodes in the order they run, and their constants.

    Args:
        prefix: of every name.
    """

    prefix: str
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    number: int = 0

    def add(
        self, operator: str, *inputs: str, name: str = "", domain: str = "", **attributes: Any
    ) -> str:
        """Add a node; returns the name of its output.

        Args:
            name: of the output; empty: generated.
        """
        from onnx import helper

        self.number += 1
        label = f"{self.prefix}{self.number}_{operator}"
        output = name or label
        self.nodes.append(
            helper.make_node(operator, inputs, [output], name=label, domain=domain, **attributes)
        )
        return output

    def cast(self, value: str, kind: int, name: str = "") -> str:
        """Add a Cast to an element type."""
        return self.add("Cast", value, name=name, to=kind)

    def slice(self, value: str, first: int, last: int | None, axis: int = 0) -> str:
        """Add a Slice along one axis; None: to the end."""
        end = self.int64([2**62 if last is None else last])
        return self.add("Slice", value, self.int64([first]), end, self.int64([axis]))

    def look_up(self, value: str, keys: list[Any], values: list[int], default: int) -> str:
        """Add a LabelEncoder from strings or integers to int64."""
        kind = "keys_strings" if isinstance(keys[0], str) else "keys_int64s"
        table: dict[str, Any] = {kind: keys, "values_int64s": values, "default_int64": default}
        return self.add("LabelEncoder", value, domain=MACHINE_LEARNING, **table)

    def int32(self, value: int | list[Any]) -> str:
        """A constant of 32 bits."""
        return self._constant(np.array(value, dtype=np.int32))

    def int64(self, value: int | list[Any]) -> str:
        """A constant of 64 bits, for shapes and axes."""
        return self._constant(np.array(value, dtype=np.int64))

    def double(self, value: float | list[Any]) -> str:
        """A constant of double precision."""
        return self._constant(np.array(value, dtype=np.float64))

    def bool(self, value: bool | list[Any]) -> str:
        """A boolean constant."""
        return self._constant(np.array(value, dtype=np.bool_))

    def strings(self, values: list[str]) -> str:
        """A constant row of strings."""
        from onnx import helper

        name = f"{self.prefix}strings_{len(self.constants)}"
        self.constants[name] = helper.make_tensor(
            name, STRING, [len(values)], np.array([value.encode() for value in values])
        )
        return name

    def table(self, name: str, values: np.ndarray[Any, Any]) -> str:
        """A constant to look integers up in; stored in as few bytes as hold them, read as int32."""
        from onnx import numpy_helper

        name = f"{self.prefix}{name}"
        kinds = (np.uint8, np.int16, np.uint16, np.int32)
        kind = next(kind for kind in kinds if values.max() <= np.iinfo(kind).max)
        self.constants[name] = numpy_helper.from_array(values.astype(kind), name)
        return self.cast(name, INT32)

    def graph(self, name: str, output: str, kind: int) -> Any:
        """The nodes as the branch of an If, which gives one tensor."""
        from onnx import helper

        value = helper.make_tensor_value_info(output, kind, None)
        return helper.make_graph(self.nodes, name, [], [value], list(self.constants.values()))

    def _constant(self, value: np.ndarray[Any, Any]) -> str:
        from onnx import numpy_helper

        shape = "x".join(map(str, value.shape))
        text = "_".join(map(str, value.ravel().tolist()))
        name = f"{self.prefix}{value.dtype}_{shape}_{text}"
        if len(name) > 80:  # large ones are written once anyway
            name = f"{self.prefix}{value.dtype}_{shape}_{len(self.constants)}"
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(value, name)
        return name
