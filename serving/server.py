"""One server process: answers on a socket, reloads on SIGHUP, stops gracefully on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import os
import signal
import socket
import time
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from serving.app import create_app
from serving.connection import Connection
from serving.engine import Engines
from serving.errors import StartError
from serving.settings import Settings

logger = logging.getLogger("serving")


# Told to stop, go on accepting this long: connections that wait to be accepted would be lost.
ACCEPT_SECONDS = 0.1


def serve(
    directory: Path | str,
    settings: Settings,
    listener: socket.socket,
    parent: socket.socket | None = None,
) -> None:
    """Open the bundle and answer until told to stop; needs the main thread.

    Args:
        listener: bound, and shared with other processes if there are several.
        parent: of one of several workers: it wants a byte when ready, and its end is a stop.

    Raises:
        ServingError: the bundle or the provider cannot be used, or the model fails.
    """
    # Tokenizing one request on every core would take them from the other inference threads.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # uvicorn repeats the signal that ended it; without these the exit status would tell of a kill.
    signal.signal(signal.SIGTERM, _exit_done)
    signal.signal(signal.SIGINT, _exit_done)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGALRM})
    app = create_app(directory, settings)
    engines: Engines = app.state.engines
    config = configuration(app, settings)
    server = Server(config, engines, settings, parent)
    listener.listen(config.backlog)  # from here on connections wait instead of failing
    predictor = engines.current.predictor
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{listener.getsockname()[1]}"
    logger.info("serving %s %s on %s", predictor.name, predictor.version, url)
    with contextlib.suppress(SystemExit):  # of _exit_done, or of a start that failed
        server.run(sockets=[listener])
    if not server.started:
        raise StartError("the model failed its warm-up; the lines above tell why")


def configuration(app: Starlette, settings: Settings) -> uvicorn.Config:
    """What uvicorn is told of an application of ours."""
    metrics = app.state.engines.metrics
    return uvicorn.Config(
        app,
        http=functools.partial(Connection, settings=settings, metrics=metrics),  # type: ignore[arg-type]
        access_log=False,
        log_config=None,
        log_level=settings.log_level,
        lifespan="on",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.stop_seconds,
    )


class Server(uvicorn.Server):
    """uvicorn's server with a reload, and a time between not being ready and stopping."""

    def __init__(
        self,
        config: uvicorn.Config,
        engines: Engines,
        settings: Settings,
        parent: socket.socket | None,
    ) -> None:
        super().__init__(config)
        self._engines = engines
        self._settings = settings
        self._parent = parent
        self._stop_at = math.inf
        self._reloads: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer from now on."""
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        if self._parent is not None:
            self._parent.send(b".")
            loop.add_reader(self._parent, self._orphaned)

    def _reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._engines.reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    def _orphaned(self) -> None:
        """Nobody is left to tell this worker to stop, so it does."""
        asyncio.get_running_loop().remove_reader(self._parent)  # type: ignore[arg-type]
        self.handle_exit(signal.SIGTERM, None)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Being told to stop: not ready from now on, and after the drain no longer there."""
        if self._engines.stopping:
            super().handle_exit(sig, frame)  # told twice: at once
            return
        self._engines.stopping = True
        signal.alarm(self._settings.stop_limit)
        self._stop_at = time.monotonic() + max(self._settings.drain_seconds, ACCEPT_SECONDS)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop."""
        return await super().on_tick(counter) or time.monotonic() >= self._stop_at


def _exit_done(*_: object) -> None:
    """Being asked to stop is not a failure."""
    raise SystemExit(0)
