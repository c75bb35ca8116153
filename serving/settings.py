"""The server's settings: SERVING_* environment variables with their defaults."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from serving.errors import SettingsError

PREFIX = "SERVING_"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen, how much to accept, and on what to run."""

    host: Annotated[
        str, Meta(min_length=1, description="address to listen on; 0.0.0.0 for every interface")
    ] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65535, description="port to listen on; 0 lets the system choose")
    ] = 8080
    threads: Annotated[
        int, Meta(ge=1, le=1024, description="inference threads; each runs one request on one core")
    ] = 1
    max_texts: Annotated[int, Meta(ge=1, description="texts, or pairs, in one request")] = 32
    max_text_characters: Annotated[int, Meta(ge=1, description="characters in one text")] = 20_000
    max_body_bytes: Annotated[int, Meta(ge=1, description="bytes in one body")] = 2 * 1024 * 1024
    queue_limit: Annotated[
        int, Meta(ge=1, description="texts accepted and not yet answered; more are refused")
    ] = 256
    provider: Annotated[
        Literal["cpu", "cuda"], Meta(description="cpu or cuda; never replaced silently")
    ] = "cpu"

    def __post_init__(self) -> None:
        """Check the two limits that depend on each other.

        Raises:
            SettingsError: a full request could never be accepted.
        """
        if self.queue_limit < self.max_texts:
            raise SettingsError(
                [
                    f"{PREFIX}QUEUE_LIMIT {self.queue_limit} is below {PREFIX}MAX_TEXTS "
                    f"{self.max_texts}: a full request could never be accepted; raise it"
                ]
            )

    @property
    def execution_provider(self) -> str:
        """The provider by onnxruntime's name."""
        return PROVIDERS[self.provider]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read every SERVING_* variable.

        Raises:
            SettingsError: unknown variables and bad values, all of them.
        """
        known = {PREFIX + item.name.upper(): item for item in msgspec.structs.fields(cls)}
        problems: list[str] = []
        values: dict[str, Any] = {}
        for variable in sorted(name for name in environment if name.startswith(PREFIX)):
            if variable not in known:
                nearest = difflib.get_close_matches(variable, known, n=1, cutoff=0.0)[0]
                problems.append(f"{variable} is not a setting; did you mean {nearest}?")
                continue
            setting, text = known[variable], environment[variable]
            try:
                values[setting.name] = msgspec.convert(text, setting.type, strict=False)
            except msgspec.ValidationError as error:
                problems.append(f"{variable} is {text!r}; {error}")
        try:
            settings = cls(**values)
        except SettingsError as error:
            problems.extend(error.problems)
        if problems:
            raise SettingsError(problems)
        return settings


def describe_settings() -> str:
    """Every variable with its default and meaning, one per line."""
    return "\n".join(
        f"{PREFIX}{item.name.upper()}={item.default}  {item.type.__metadata__[0].description}"
        for item in msgspec.structs.fields(Settings)
    )
