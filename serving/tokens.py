"""Bearer tokens: who may ask; from the environment or from a file that may change."""

from __future__ import annotations

import hmac
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from serving.errors import SettingsError
from serving.settings import PREFIX, Settings

logger = logging.getLogger("serving")


class Tokens:
    """The tokens accepted now; no setting for them means that everyone may ask."""

    def __init__(self, settings: Settings) -> None:
        """Read them.

        Raises:
            SettingsError: the file cannot be read, or there is no token where one was promised.
        """
        self._given = _tokens(settings.tokens.split(","))
        if settings.tokens and not self._given:
            raise SettingsError([f"{PREFIX}TOKENS holds no token"])
        self._file = Path(settings.tokens_file) if settings.tokens_file else None
        self._stamp: tuple[int, ...] = ()
        self._filed: list[bytes] = []
        if self._file is not None:
            try:
                self._read(self._file)
            except (OSError, ValueError) as error:
                raise SettingsError([f"{PREFIX}TOKENS_FILE {self._file}: {error}"]) from error

    def allow(self, authorization: bytes) -> bool:
        """Whether the value of an Authorization header is good; takes as long whichever matches."""
        if self._file is not None:
            try:
                self._read(self._file)
            except (OSError, ValueError) as error:
                logger.error("the tokens of before stay, as %s: %s", self._file, error)
        known = self._given + self._filed
        scheme, _, token = authorization.partition(b" ")
        matches = [hmac.compare_digest(token.strip(), one) for one in known]
        return not known or (scheme.lower() == b"bearer" and any(matches))

    def _read(self, file: Path) -> None:
        """Read the file if it is another one than before.

        Raises:
            OSError: it cannot be read.
            ValueError: it holds no token, or bytes that are no text.
        """
        facts = os.stat(file)  # noqa: PTH116 # Path.stat costs twice as much, on every request
        stamp = (facts.st_mtime_ns, facts.st_ino, facts.st_size)
        if stamp == self._stamp:
            return
        self._stamp = stamp  # also of a file that is wrong: complain once
        tokens = _tokens(file.read_text("utf-8").splitlines())
        if not tokens:
            raise ValueError("no token in it")
        self._filed = tokens


def _tokens(candidates: Iterable[str]) -> list[bytes]:
    return [token.strip().encode() for token in candidates if token.strip()]
