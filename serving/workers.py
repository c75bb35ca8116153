"""Several server processes on one port: started, kept alive, told to reload, told to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger("serving")

SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM}
EXIT_ERROR = 1
RESTART_SECONDS = 1.0


class Workers:
    """Forks workers and replaces those that die; needs a process without threads.

    Args:
        work: runs in each of them and gives its exit status. The socket it is given wants one
            byte once the worker is ready, and ends when this process does.
        stop_seconds: how long workers may take to stop before they are killed.
        shared: where workers leave what they count.
    """

    def __init__(
        self, work: Callable[[socket.socket], int], stop_seconds: int, shared: Path
    ) -> None:
        self._work = work
        self._stop_seconds = stop_seconds
        self._shared = shared
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._living: set[int] = set()
        self._stopping = False
        self._status = 0

    def run(self, count: int) -> int:
        """Keep so many alive until SIGTERM or SIGINT; SIGHUP is passed on; the exit status."""
        # Never handled, only waited for: nothing is interrupted, and nothing is missed.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for _ in range(count):
            self._start()
        while self._living:
            number = signal.sigwait(SIGNALS)
            if number == signal.SIGCHLD:
                self._bury()
            elif number == signal.SIGHUP:
                self._send(signal.SIGHUP)
            elif number == signal.SIGALRM:
                self._send(signal.SIGKILL)
            else:
                self._stop()
        return self._status

    def _start(self, delay: float = 0.0) -> None:
        process = os.fork()
        if process:
            self._living.add(process)
            return
        status = EXIT_ERROR
        try:
            self._ours.close()
            time.sleep(delay)
            status = self._work(self._theirs)
        finally:
            os._exit(status)

    def _send(self, number: signal.Signals) -> None:
        for process in self._living:
            os.kill(process, number)

    def _stop(self) -> None:
        self._stopping = True
        self._send(signal.SIGTERM)
        signal.alarm(self._stop_seconds)

    def _bury(self) -> None:
        """Note who ended; start another, except where none ever became ready."""
        while self._living:
            process, outcome = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            self._living.discard(process)
            for left in self._shared.glob(f"gauge_live*_{process}.db"):
                left.unlink()
            status = os.waitstatus_to_exitcode(outcome)
            if self._stopping:
                self._status = self._status or (EXIT_ERROR if status else 0)
            elif self._ever_ready():
                logger.warning("worker %d ended with status %d; another starts", process, status)
                self._start(RESTART_SECONDS)
            else:
                self._status = status if status > 0 else EXIT_ERROR
                self._stop()

    def _ever_ready(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            return bool(self._ours.recv(1, socket.MSG_PEEK))
        return False
