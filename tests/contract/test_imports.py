"""Which package may load which library, seen from fresh interpreters."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_line import ROOT, Line, clean_environment, python

import factory

BUILD_STACK = {
    "torch", "transformers", "optimum", "onnx", "datasets", "accelerate", "sklearn", "scipy",
    "pyarrow", "pandas", "gensim",
}  # fmt: skip


def loaded_after(code: str) -> set[str]:
    """Top-level names in sys.modules after running code in a fresh interpreter."""
    program = f"{code}\nimport sys\nprint(' '.join({{n.partition('.')[0] for n in sys.modules}}))"
    return set(python(program).splitlines()[-1].split())


def modules_of(package: str) -> list[str]:
    """Every module of a package by dotted name."""
    files = sorted((ROOT / package).rglob("*.py"))
    names = [file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for file in files]
    return [name.removesuffix(".__init__") for name in names]


def test_the_whole_server_loads_nothing_of_the_build_stack() -> None:
    """Every module of serving, all in one interpreter."""
    modules = [name for name in modules_of("serving") if not name.endswith("__main__")]
    assert len(modules) > 5
    loaded = loaded_after("import " + ", ".join([*modules, "serving.__main__"]))
    # click comes with uvicorn; that no line of ours imports it is checked below
    assert not loaded & (BUILD_STACK | {"factory", "pydantic"})


def test_serving_a_bundle_loads_nothing_of_the_build_stack(line: Line) -> None:
    code = (
        "from serving import Predictor\n"
        f"assert Predictor.open({str(line.bundle)!r}).predict(['thanks'])"
    )
    loaded = loaded_after(code)
    assert "onnxruntime" in loaded
    assert not loaded & (BUILD_STACK | {"factory"})


def test_no_line_of_serving_imports_the_factory_or_its_libraries() -> None:
    """Also inside functions, where a fresh interpreter would not see it."""
    for file in (ROOT / "serving").rglob("*.py"):
        imported = {name.partition(".")[0] for name in imports_of(file)}
        assert not imported & (BUILD_STACK | {"factory", "pydantic", "click", "tqdm"}), file


def imports_of(file: Path) -> set[str]:
    """Every module a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.add(node.module or "")
    return names


def test_importing_the_factory_is_free() -> None:
    loaded = loaded_after("import factory")
    assert not loaded & (
        BUILD_STACK | {"pydantic", "numpy", "click", "tqdm", "onnxruntime", "serving", "tokenizers"}
    )


@pytest.mark.parametrize("name", factory.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(factory, name).__name__ == name


def test_a_name_that_is_not_public() -> None:
    with pytest.raises(AttributeError, match="module 'factory' has no attribute 'nothing'"):
        _ = factory.nothing


def test_the_light_half_of_the_public_api_loads_no_torch() -> None:
    loaded = loaded_after("from factory import FactoryError, Recipe, Store, load_recipe, run")
    assert not loaded & {"torch", "transformers", "optimum", "onnx", "onnxruntime", "datasets"}


@pytest.mark.parametrize("command", ["validate", "plan", "init", "inspect", "verify"])
def test_commands_that_train_nothing_load_no_torch(
    line: Line, tmp_path: Path, command: str
) -> None:
    places = {
        "validate": [line.recipe],
        "plan": [line.recipe, "--store", line.store],
        "init": [tmp_path / "r.toml"],
        "inspect": [line.bundle],
        "verify": [line.bundle],
    }
    arguments = [command, *map(str, places[command])]
    program = f"from factory.cli.main import main\nmain({arguments!r}, standalone_mode=False)"
    loaded = loaded_after(program)
    assert not loaded & {"torch", "transformers", "optimum", "onnx", "datasets", "sklearn"}


def test_both_packages_have_a_module_to_run() -> None:
    for package in ("factory", "serving"):
        result = subprocess.run(
            [sys.executable, "-m", package, "--help"],
            cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.lower().startswith("usage:")
