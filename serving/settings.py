"""The server's settings: SERVING_* environment variables with their defaults."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from serving.errors import SettingsError
from serving.processors import allowed_processors

PREFIX = "SERVING_"
# What a stop may take beyond its limit before the process is ended by force.
GRACE_SECONDS = 5
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen, whom to answer, how much to accept, and on what to run."""

    host: Annotated[
        str, Meta(min_length=1, description="address to listen on; 0.0.0.0 for every interface")
    ] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65535, description="port to listen on; 0 lets the system choose")
    ] = 8080
    workers: Annotated[Count, Meta(le=256, description="processes that share the port")] = 1
    threads: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | Literal["auto"],
        Meta(description="inference threads of a process; auto: one per processor allowed"),
    ] = "auto"
    max_texts: Annotated[Count, Meta(description="texts, or pairs, in one request")] = 32
    max_text_characters: Annotated[Count, Meta(description="characters in one text")] = 20_000
    max_body_bytes: Annotated[Count, Meta(description="bytes in one body")] = 2 * 1024 * 1024
    max_header_bytes: Annotated[Count, Meta(description="bytes before the body")] = 16 * 1024
    max_connections: Annotated[Count, Meta(description="connections to one process")] = 1000
    queue_limit: Annotated[
        Count, Meta(description="texts accepted and not yet answered; more are refused")
    ] = 256
    read_seconds: Annotated[
        Seconds, Meta(description="time a client has to send a head, and a body")
    ] = 10
    deadline_seconds: Annotated[
        Seconds, Meta(description="age of a request beyond which its texts are not run")
    ] = 15
    keep_alive_seconds: Annotated[Count, Meta(description="an idle connection stays open")] = 5
    drain_seconds: Annotated[
        float, Meta(ge=0, description="told to stop, go on accepting this long while not ready")
    ] = 0
    stop_seconds: Annotated[Count, Meta(description="then finish what is in within this")] = 20
    tokens: Annotated[str, Meta(description="bearer tokens, comma separated; none: open")] = ""
    tokens_file: Annotated[
        str, Meta(description="file of bearer tokens, one a line; read again when it changes")
    ] = ""
    metrics_open: Annotated[bool, Meta(description="/metrics needs no token")] = False
    log_format: Annotated[
        Literal["auto", "json", "text"], Meta(description="auto: text on a terminal, else json")
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least level logged")
    ] = "info"
    log_requests: Annotated[bool, Meta(description="one line per request")] = True
    log_texts: Annotated[bool, Meta(description="texts of users may appear in logs")] = False
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

    @property
    def stop_limit(self) -> int:
        """Seconds after which a process that was told to stop is ended by force."""
        return math.ceil(self.drain_seconds) + self.stop_seconds + GRACE_SECONDS

    @property
    def inference_threads(self) -> int:
        """Threads of this process: its share of the processors, one on a GPU, or what was set."""
        if self.threads != "auto":
            return self.threads
        return max(1, allowed_processors() // self.workers) if self.provider == "cpu" else 1

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
        f"{PREFIX}{item.name.upper()}={item.default}  {item.type.__metadata__[-1].description}"
        for item in msgspec.structs.fields(Settings)
    )
