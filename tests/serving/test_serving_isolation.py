"""What importing the server does not import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "optimum", "onnx", "datasets", "sklearn", "factory"}


def modules_after(code: str) -> set[str]:
    """Top-level names in sys.modules after running code in a fresh interpreter."""
    program = f"{code}\nimport sys\nprint(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_importing_the_package_is_free() -> None:
    loaded = modules_after("import serving")
    assert "serving" in loaded
    assert not loaded & (HEAVY | {"starlette", "uvicorn", "onnxruntime", "numpy", "msgspec"})


def test_reading_a_manifest_needs_no_engine(bundle: Path) -> None:
    loaded = modules_after(f"import serving; serving.read_manifest({str(bundle)!r})")
    assert "msgspec" in loaded
    assert not loaded & (HEAVY | {"starlette", "uvicorn", "onnxruntime", "tokenizers"})


@pytest.mark.parametrize("module", ["predictor", "app", "__main__", "protocol", "scheduling"])
def test_modules_do_not_import_the_build_stack(module: str) -> None:
    assert not modules_after(f"import serving.{module}") & HEAVY


def test_predicting_does_not_import_the_build_stack_or_the_server(bundle: Path) -> None:
    code = f"import serving; serving.Predictor.open({str(bundle)!r}).predict(['good'])"
    loaded = modules_after(code)
    assert "onnxruntime" in loaded
    assert not loaded & (HEAVY | {"starlette", "uvicorn"})


def test_unknown_public_name() -> None:
    import serving

    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = serving.Nothing
