"""Which package may load which library, and which room of the factory may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from helpers.pipeline_run import ROOT, Line, clean_environment, python

import factory

BUILD_STACK = {
    "torch", "transformers", "optimum", "onnx", "datasets", "accelerate", "sklearn", "scipy",
    "pyarrow", "pandas", "gensim",
}  # fmt: skip


# A room is a package or module directly below factory/. Every room imports only the rooms of its
# row; a room that is not listed (stages, plan, pipeline, api, ...) puts the others together and may
# import all of them but cli.
ROOMS = {
    "version": "",
    "errors": "",
    "recipe": "errors",
    "runtime": "errors version",
    "store": "errors runtime",
    "models": "errors runtime store",
    "data": "errors recipe runtime store models",
    "evaluation": "errors recipe runtime store data models",
    "training": "errors recipe runtime store data models",
    "teacher": "errors recipe runtime store data models evaluation training",
    "distill": "errors recipe runtime store data models training teacher",
    "augment": "errors recipe runtime store data models",
    "export": "errors recipe runtime data models evaluation",
    "bundle": "errors version recipe runtime store data models evaluation export",
    "report": "errors version recipe runtime store data models evaluation bundle",
    "predict": "errors version runtime data",
    "scaffold": "errors recipe runtime data models",
}
# Tables that rooms below theirs read: importer, imported.
TABLES = (
    ("factory.recipe", "factory.export.forms"),  # names of the quantized forms
    ("factory.recipe", "factory.evaluation.gate"),  # gate rules that need other settings
    ("factory.evaluation", "factory.export.forms"),
    ("factory.models.tasks", "factory.data"),  # one object per task, what it learns and reports
    ("factory.models.tasks", "factory.evaluation"),
    ("factory.models.tasks", "factory.recipe"),
    ("factory.report.page", "factory.planning"),  # the type of a plan
)


def loaded_after(code: str) -> set[str]:
    """Top-level names in sys.modules after running code in a fresh interpreter."""
    program = f"{code}\nimport sys\nprint(' '.join({{n.partition('.')[0] for n in sys.modules}}))"
    return set(python(program).splitlines()[-1].split())


def test_the_whole_server_loads_nothing_of_the_build_stack() -> None:
    """Every module of serving, all in one interpreter."""
    modules = [
        name for name in MODULES if name.startswith("serving") and not name.endswith("__main__")
    ]
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


def imports_of(file: Path, *, on_load: bool = False) -> set[str]:
    """Every module a file imports, anywhere in it or while it is loaded."""
    names: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            assert node.module is not None
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in inner if name in MODULES}
            names |= modules
            if len(modules) < len(inner):
                names.add(node.module)
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not (on_load and (isinstance(node, ast.FunctionDef) or typing_only)):
            nodes += ast.iter_child_nodes(node)
    return names


MODULES = {
    name: file
    for package in ("factory", "serving")
    for file in sorted((ROOT / package).rglob("*.py"))
    for name in [
        file.relative_to(ROOT)
        .with_suffix("")
        .as_posix()
        .replace("/", ".")
        .removesuffix(".__init__")
    ]
}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def is_allowed(importer: str, imported: str) -> bool:
    """Whether a module of the factory may import another one."""
    own, other = room_of(importer), room_of(imported)
    if own == other or own in ("factory", "cli", "__main__"):
        return True
    if own not in ROOMS:
        return other != "cli"
    return other in ROOMS[own].split() or any(
        importer.startswith(above) and imported.startswith(table) for above, table in TABLES
    )


def test_every_room_imports_only_the_rooms_of_its_row() -> None:
    found = [
        f"{importer} imports {imported}"
        for importer, file in MODULES.items()
        for imported in sorted(imports_of(file))
        if importer.startswith("factory") and imported.startswith("factory.")
        if not is_allowed(importer, imported)
    ]
    assert found == []


def test_the_contract_forbids_what_it_should() -> None:
    assert is_allowed("factory.recipe.export", "factory.export.forms")
    assert not is_allowed("factory.recipe.export", "factory.export.onnx")
    assert not is_allowed("factory.store", "factory.recipe.recipe")
    assert not is_allowed("factory.data.source", "factory.pipeline")
    assert not is_allowed("factory.pipeline", "factory.cli.run")
    rooms = list(ROOMS)
    for room, others in ROOMS.items():
        for other in others.split():
            assert rooms.index(other) < rooms.index(room), f"{room} stands before {other}"


def test_no_module_imports_itself_through_others() -> None:
    """While modules are loaded; an import inside a function waits until the function is called."""
    graph = {name: imports_of(file, on_load=True) & set(MODULES) for name, file in MODULES.items()}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_importing_the_factory_is_free() -> None:
    loaded = loaded_after("import factory")
    assert not loaded & (
        BUILD_STACK | {"pydantic", "numpy", "click", "tqdm", "onnxruntime", "serving", "tokenizers"}
    )


def test_public_names() -> None:
    for name in factory.__all__:
        assert getattr(factory, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'factory' has no attribute 'nothing'"):
        _ = factory.nothing


def test_the_light_half_of_the_public_api_loads_no_torch() -> None:
    loaded = loaded_after("from factory import FactoryError, Recipe, Store, load_recipe, run")
    assert not loaded & {"torch", "transformers", "optimum", "onnx", "onnxruntime", "datasets"}


def test_commands_that_train_nothing_load_no_torch(line: Line, tmp_path: Path) -> None:
    commands = (
        ["validate", line.recipe],
        ["plan", line.recipe, "--store", line.store],
        ["init", tmp_path / "r.toml"],
        ["inspect", line.bundle],
        ["verify", line.bundle],
    )
    program = "from factory.cli.main import main\n" + "".join(
        f"main({[*map(str, command)]!r}, standalone_mode=False)\n" for command in commands
    )
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
