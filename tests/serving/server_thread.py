"""The real HTTP server in a thread: real sockets without the start of a process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from serving.app import create_app
from serving.predictor import Predictor
from serving.server import configuration
from serving.settings import Settings


@contextmanager
def serving(predictor: Predictor, settings: Settings) -> Iterator[int]:
    """The port of a server in a thread."""
    app = create_app(predictor, settings)
    server = uvicorn.Server(configuration(app, settings))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
