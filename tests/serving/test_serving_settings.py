"""Settings from the environment."""

from __future__ import annotations

import msgspec
import pytest

from serving.errors import SettingsError
from serving.settings import Settings, describe_settings


def test_defaults() -> None:
    assert msgspec.structs.asdict(Settings.from_environment({"PATH": "/bin"})) == {
        "host": "127.0.0.1",
        "port": 8080,
        "threads": 1,
        "max_texts": 32,
        "max_text_characters": 20_000,
        "max_body_bytes": 2_097_152,
        "queue_limit": 256,
        "provider": "cpu",
    }


def test_every_variable_is_read() -> None:
    given = {
        "SERVING_HOST": "::1",
        "SERVING_PORT": "0",
        "SERVING_THREADS": "2",
        "SERVING_MAX_TEXTS": "3",
        "SERVING_MAX_TEXT_CHARACTERS": "4",
        "SERVING_MAX_BODY_BYTES": "5",
        "SERVING_QUEUE_LIMIT": "6",
        "SERVING_PROVIDER": "cuda",
    }
    settings = Settings.from_environment(given)
    assert [str(value) for value in msgspec.structs.astuple(settings)] == list(given.values())
    assert settings.execution_provider == "CUDAExecutionProvider"


def test_all_problems_at_once_with_the_nearest_name() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(
            {
                "SERVING_PROT": "1",
                "SERVING_PORT": "70000",
                "SERVING_THREADS": "many",
                "SERVING_PROVIDER": "tpu",
                "SERVING_MAX_TEXTS": "1000",
            }
        )
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    assert "SERVING_PROT is not a setting; did you mean SERVING_PORT?" in problems
    assert "SERVING_PORT is '70000'; Expected `int` <= 65535" in problems
    assert "SERVING_THREADS is 'many'; Expected `int`" in problems
    assert "SERVING_PROVIDER is 'tpu'" in problems
    assert "SERVING_QUEUE_LIMIT 256 is below SERVING_MAX_TEXTS 1000" in problems


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SERVING_HOST", ""),
        ("SERVING_PORT", "-1"),
        ("SERVING_PORT", ""),
        ("SERVING_PORT", "80.5"),
        ("SERVING_THREADS", "0"),
        ("SERVING_MAX_TEXTS", "0"),
        ("SERVING_MAX_TEXT_CHARACTERS", "true"),
        ("SERVING_MAX_BODY_BYTES", "2 MiB"),
        ("SERVING_PROVIDER", "CPU"),
        ("SERVING_", "1"),
    ],
)
def test_bad_value_names_its_variable(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable} is "):
        Settings.from_environment({variable: value})


def test_description_lists_every_setting() -> None:
    lines = describe_settings().splitlines()
    assert len(lines) == len(msgspec.structs.fields(Settings))
    assert lines[1] == "SERVING_PORT=8080  port to listen on; 0 lets the system choose"
