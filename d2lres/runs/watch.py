"""A process of a run of several, and its line to the launcher.

MXNet's workers wait for one another without end, should one die. So each process that
``python -m d2lres launch`` started keeps a connection to the launcher. It breaks when the process
dies, when its machine does, or when the network between them does; the launcher then tells all
others, who end with a sentence that says who it was.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
import threading
import time

__all__ = ["LAUNCHER", "got_rank", "join", "keep_alive", "leave", "lines_of", "tell"]

LAUNCHER = "D2LRES_LAUNCHER"  # host:port:a word that only this run knows
SECONDS_TO_NOTICE = 25  # a machine or a network that has gone silent


class _Line:
    socket = None
    is_left = False  # this process is about to end well
    output = None


class _Output:
    """Where a worker prints: nowhere, until it is decided whether it is the one that is shown."""

    def __init__(self, shown):
        self._shown, self._file = shown, io.StringIO()

    def decide(self, is_shown):
        if isinstance(self._file, io.StringIO):  # else it has been decided
            before = self._file.getvalue()
            self._file = self._shown if is_shown else open(os.devnull, "w")
            self._file.write(before)

    def __getattr__(self, name):
        return getattr(self._file, name)


def keep_alive(connection: socket.socket) -> None:
    """Let a connection break when nothing has come through for a while."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    tcp = {"TCP_KEEPIDLE": 5, "TCP_KEEPALIVE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
    for name, value in (tcp | {"TCP_USER_TIMEOUT": 1000 * SECONDS_TO_NOTICE}).items():
        if hasattr(socket, name):  # each system has some of them
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def lines_of(connection: socket.socket):
    """Yield the lines that come through a connection until it ends or breaks."""
    try:
        with connection.makefile(encoding="utf-8", errors="replace") as file:
            while line := file.readline(1000):
                yield line.strip()
    except OSError:
        pass


def join(role: str, host: str) -> None:
    """Connect this process to the launcher that started it; end it when that says so.

    A worker's output is held back until it is known whether it is worker 0, who alone prints.
    """
    address, port, word = os.environ[LAUNCHER].rsplit(":", 2)
    _Line.socket = socket.create_connection((address, int(port)), SECONDS_TO_NOTICE)
    _Line.socket.settimeout(None)
    keep_alive(_Line.socket)
    tell(f"{word} {role} {host}")
    threading.Thread(target=_listen, args=(role,), daemon=True).start()
    if role == "worker":
        _Line.output = sys.stdout = _Output(sys.stdout)


def tell(line: str) -> None:
    """Tell the launcher something, if there is one."""
    if _Line.socket:
        _Line.socket.sendall(f"{line}\n".encode())


def got_rank(rank: int) -> None:
    """Tell the launcher which worker this is, and print what was held back, or never."""
    tell(f"rank {rank}")
    if _Line.output:
        _Line.output.decide(rank == 0)


def leave(how: str) -> None:
    """Tell the launcher that this process ends, and how."""
    _Line.is_left = True
    if _Line.output:
        _Line.output.decide(True)
    tell(how)


def _listen(role):
    for line in lines_of(_Line.socket):
        word, _, sentence = line.partition(" ")
        if word == "stop":
            os.kill(os.getpid(), signal.SIGINT)
        elif word == "end":
            _end(role, sentence)
    _end(role, "the launcher is gone: this worker ends")


def _end(role, sentence):
    """End this process at once: its main thread may wait in MXNet for what never comes."""
    while _Line.is_left:
        time.sleep(1)  # it is about to end by itself
    if role == "worker" and sentence:
        sys.stderr.write(f"d2lres: {sentence}\n")  # in one piece, as others write, too
        sys.stderr.flush()
    os._exit(1)
