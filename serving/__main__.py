"""`python -m serving BUNDLE`: verify a bundle, listen, answer until told to stop."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from serving.errors import MissingDependencyError, ServingError, SettingsError, StartError
from serving.logs import configure_logging
from serving.settings import PREFIX, Settings, describe_settings
from serving.workers import Workers

EXIT_ERROR = 1
EXIT_USAGE = 2
MEMORY = Path("/dev/shm")


def run(directory: Path | str, settings: Settings) -> int:
    """Serve a bundle until SIGTERM or SIGINT; needs the main thread; the exit status.

    Raises:
        BundleError: the bundle cannot be trusted or used.
        ProviderError: the provider asked for is not available.
        MissingDependencyError: the serving extra is not installed.
        StartError: the port cannot be had, or there is nowhere for several workers to count.
    """
    with _listen(settings.host, settings.port) as listener:
        if settings.workers == 1:
            return _serve(directory, settings, listener)
        try:
            place = MEMORY if os.access(MEMORY, os.W_OK) else None
            shared = tempfile.TemporaryDirectory(prefix="serving-", dir=place)
        except OSError as error:
            raise StartError(
                "workers count in files that they share, and no directory for temporary files is "
                "writable; set TMPDIR, or serve with one worker"
            ) from error
        with shared as path:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = path  # read by prometheus_client's import

            def work(parent: socket.socket) -> int:
                return _told(lambda: _serve(directory, settings, listener, parent))

            return Workers(work, settings.stop_limit, Path(path)).run(settings.workers)


def _serve(
    directory: Path | str,
    settings: Settings,
    listener: socket.socket,
    parent: socket.socket | None = None,
) -> int:
    """Serve in this process; the exit status."""
    try:
        from serving.server import serve
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed; run: pip install 'tinybert-factory[serve,cpu]'"
        ) from error
    serve(directory, settings, listener, parent)
    return 0


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
    parser.add_argument("--workers", help=f"overrides {PREFIX}WORKERS")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, serve, and turn failures into one line and an exit status."""
    options = _parser().parse_args(arguments)
    environment = dict(os.environ)
    for name in ("host", "port", "workers"):
        if (value := getattr(options, name)) is not None:
            environment[PREFIX + name.upper()] = value

    def serve() -> int:
        settings = Settings.from_environment(environment)
        configure_logging(settings)
        # Until it is handled, a reload that is asked for waits instead of ending the process.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        return run(options.bundle, settings)

    return _told(serve)


def _told(work: Callable[[], int]) -> int:
    """Do it; failures become one line and an exit status."""
    try:
        return work()
    except SettingsError as error:
        _talk(f"error: {error}")
        return EXIT_USAGE
    except ServingError as error:
        _talk(f"error: {error}")
        return EXIT_ERROR


if __name__ == "__main__":
    raise SystemExit(main())
