"""Settings from the environment."""

from __future__ import annotations

import msgspec
import pytest

from serving.errors import SettingsError
from serving.settings import Settings, describe_settings

DEFAULTS = {
    "host": "127.0.0.1",
    "port": 8080,
    "workers": 1,
    "threads": "auto",
    "max_texts": 32,
    "max_text_characters": 20_000,
    "max_body_bytes": 2_097_152,
    "max_header_bytes": 16_384,
    "max_connections": 1000,
    "queue_limit": 256,
    "read_seconds": 10,
    "deadline_seconds": 15,
    "keep_alive_seconds": 5,
    "drain_seconds": 0,
    "stop_seconds": 20,
    "tokens": "",
    "tokens_file": "",
    "metrics_open": False,
    "log_format": "auto",
    "log_level": "info",
    "log_requests": True,
    "log_texts": False,
    "provider": "cpu",
}


def test_defaults() -> None:
    assert msgspec.structs.asdict(Settings.from_environment({"PATH": "/bin"})) == DEFAULTS


def test_every_variable_is_read() -> None:
    words = {
        "host": "::1",
        "tokens": "a,b",
        "tokens_file": "/tokens",
        "metrics_open": "true",
        "log_format": "text",
        "log_level": "error",
        "log_requests": "false",
        "log_texts": "true",
        "provider": "cuda",
    }
    given = {name: words.get(name, str(number)) for number, name in enumerate(DEFAULTS, 2)}
    given["queue_limit"] = "200"
    settings = Settings.from_environment({f"SERVING_{k.upper()}": v for k, v in given.items()})
    read = msgspec.structs.asdict(settings)
    assert {k: str(v).lower().removesuffix(".0") for k, v in read.items()} == {
        k: v.lower() for k, v in given.items()
    }
    assert settings.execution_provider == "CUDAExecutionProvider"


def test_a_stop_is_over_before_it_is_forced() -> None:
    assert Settings(drain_seconds=2.5, stop_seconds=4).stop_limit == 3 + 4 + 5


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
    assert "SERVING_THREADS is 'many'; Invalid enum value" in problems
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
        ("SERVING_METRICS_OPEN", "yes"),
        ("SERVING_DRAIN_SECONDS", "-1"),
        ("SERVING_READ_SECONDS", "0"),
        ("SERVING_READ_SECONDS", "inf"),
        ("SERVING_", "1"),
    ],
)
def test_bad_value_names_its_variable(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable} is "):
        Settings.from_environment({variable: value})


def test_description_lists_every_setting() -> None:
    lines = describe_settings().splitlines()
    assert len(lines) == len(msgspec.structs.fields(Settings))
    assert lines[1:3] == [
        "SERVING_PORT=8080  port to listen on; 0 lets the system choose",
        "SERVING_WORKERS=1  processes that share the port",
    ]
