"""`python -m serving BUNDLE`: verify a bundle, listen, answer until told to stop."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.errors import MissingDependencyError, ServingError, SettingsError, StartError
from serving.settings import PREFIX, Settings, describe_settings

EXIT_ERROR = 1
EXIT_USAGE = 2
# Below the 30 s an orchestrator usually waits between asking and killing.
DRAIN_SECONDS = 20


def run(directory: Path | str, settings: Settings) -> None:
    """Serve a bundle until SIGTERM or SIGINT; needs the main thread.

    Raises:
        BundleError: the bundle cannot be trusted or used.
        ProviderError: the provider asked for is not available.
        MissingDependencyError: the serving extra is not installed.
        StartError: the port cannot be had.
    """
    # Tokenizing one request on every core would take them from the other inference threads.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import uvicorn

        from serving.app import create_app
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed; run: pip install 'tinybert-factory[serve,cpu]'"
        ) from error
    from serving.predictor import Predictor

    # uvicorn repeats the signal that ended it; without these the exit status would tell of a kill.
    signal.signal(signal.SIGTERM, _exit_done)
    signal.signal(signal.SIGINT, _exit_done)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with _listen(settings.host, settings.port) as listener:
        predictor = Predictor.open(directory, provider=settings.execution_provider)
        config = uvicorn.Config(
            create_app(predictor, settings),
            access_log=False,
            log_config=None,
            lifespan="on",
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        listener.listen(config.backlog)  # from here on connections wait instead of failing
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        port = listener.getsockname()[1]
        _talk(f"serving {predictor.name} {predictor.version} on http://{host}:{port}")
        server = uvicorn.Server(config)
        server.run(sockets=[listener])
        if not server.started:
            raise StartError("the model failed its warm-up; the lines above tell why")


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that a port in use is known before a model is loaded.

    Raises:
        StartError: the address is unknown, or the port taken or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise StartError(
            f"cannot listen on {host} port {port} ({error.strerror}); "
            "stop what uses it, or choose others with --host and --port"
        ) from error
    return listener


def _exit_done(*_: object) -> None:
    """Being asked to stop is not a failure."""
    raise SystemExit(0)


def _talk(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    """The command line; the settings it does not have are listed with their variables."""
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="Serve one bundle over HTTP.",
        epilog=f"environment variables:\n{describe_settings()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, help="directory of the bundle")
    parser.add_argument("--host", help=f"overrides {PREFIX}HOST")
    parser.add_argument("--port", help=f"overrides {PREFIX}PORT")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, serve, and turn failures into one line and an exit status."""
    options = _parser().parse_args(arguments)
    environment = dict(os.environ)
    for name in ("host", "port"):
        if (value := getattr(options, name)) is not None:
            environment[PREFIX + name.upper()] = value
    try:
        run(options.bundle, Settings.from_environment(environment))
    except SettingsError as error:
        _talk(f"error: {error}")
        return EXIT_USAGE
    except ServingError as error:
        _talk(f"error: {error}")
        return EXIT_ERROR
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
