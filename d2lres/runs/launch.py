"""Starting the processes of a run of several, and looking after them until the last has ended.

MXNet's own launcher (``mxnet/tools/launch.py``, with ``dmlc_tracker``) starts them, on this machine
or over ssh. It looks after none: that is done here, see `watch`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

from .watch import LAUNCHER, keep_alive

__all__ = ["launch"]

LOOPBACK = "127.0.0.1"
SECONDS_TO_JOIN = 120  # to start Python and to connect, also on a slow machine
SECONDS_TO_SAVE = 30
SECONDS_TO_END = 10
WORKERS_PER_HOST = "D2LRES_WORKERS_PER_HOST"


def launch(
    command: list[str],
    num_workers: int,
    num_servers: int = 1,
    hosts: str | os.PathLike | None = None,
) -> bool:
    """Start a command in several workers that train together, and wait until all have ended.

    Parameters
    ----------
    command : list of str
        Words of ``python -m d2lres``, or the path of a program in Python and its arguments.
    num_workers, num_servers : int
    hosts : path, optional
        A file with a host in each line, ``address`` or ``address:port`` of its ssh, which lets you
        in with a key and has the same files at the same place. By default everything runs on this
        machine, and listens on its loopback alone.

    Returns
    -------
    bool
        Whether the run came to its end; otherwise it was told to stop.

    Raises
    ------
    RuntimeError
        If a process could not be started, ended with an error or died; all others have ended, too.
    """
    addresses = None if hosts is None else _addresses(hosts)
    with socket.create_server((_address_here(addresses), 0)) as server:
        jobs = _Jobs(server, num_workers, num_servers)
        env = os.environ | ({"DMLC_NODE_HOST": LOOPBACK} if addresses is None else {})
        words = _words(command, jobs.address, -(-num_workers // len(addresses or [0])))
        jobs.start(env, _in_the_wheel(words, num_workers, num_servers, hosts, jobs.host))
        return jobs.look_after()


def _addresses(hosts):
    lines = [line.strip() for line in Path(hosts).read_text().splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    for line in lines:
        if not re.fullmatch(r"[\w.-]+(:[0-9]+)?", line):
            raise ValueError(f"{hosts}: expected address or address:port in a line, not {line!r}")
    if not lines:
        raise ValueError(f"{hosts} names no host: write an address in each line")
    return [line.partition(":")[0] for line in lines]


def _address_here(addresses):
    """Return the address of this machine in the network that the hosts are in."""
    if addresses is None:
        return LOOPBACK
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((addresses[-1], 9))  # sends nothing
        return probe.getsockname()[0]


def _words(command, launcher, per_host):
    """Return the command of every process as one line for a shell.

    It may stand alone or between single quotes, as the wheel's launcher has it.
    """
    passed = {n: v for n, v in os.environ.items() if re.match("D2LRES_|MXNET_|PS_|PYTHONPATH$", n)}
    passed |= {LAUNCHER: launcher, WORKERS_PER_HOST: per_host}
    words = ["env", *(f"{name}={value}" for name, value in passed.items())]
    words += [sys.executable, "-m", "d2lres", "node", *command]
    if bad := [word for word in words if re.search("['\n]", word)]:
        raise ValueError(f"a word of the command may have no quote and no new line: {bad[0]!r}")
    return " ".join(re.sub(r"([^\w@%+=:,./-])", r"\\\1", word) for word in words)


def _in_the_wheel(words, num_workers, num_servers, hosts, root):
    """Return the arguments of a process that runs the wheel's launcher."""
    how = ["local", "None"] if hosts is None else ["ssh", os.fspath(hosts)]
    options = ["-n", num_workers, "-s", num_servers, "--launcher", how[0], "-H", how[1]]
    options += ["--sync-dst-dir", "None", words]
    return [sys.executable, "-m", __name__, root, *map(str, options)]


def _run_the_wheels(root, *arguments):
    """Run the wheel's launcher as if this were the Python that it was written for."""
    warnings.simplefilter("ignore")  # it calls what is deprecated
    threading.Thread.isAlive = threading.Thread.is_alive  # gone since Python 3.9
    threading.excepthook = lambda _: os._exit(1)  # else it would wait for who never started

    from dmlc_tracker import tracker

    tracker.get_host_ip = lambda _=None: root
    tracker.logging.basicConfig(level="ERROR")
    with socket.create_server((root, 0)) as free:  # two runs that start at once differ, too
        port = free.getsockname()[1]
    tracker.PSTracker.__init__.__defaults__ = (port, 65536, None)
    sys.argv[:] = ["launch.py", *arguments]
    mxnet = importlib.util.find_spec("mxnet").submodule_search_locations[0]
    runpy.run_path(os.path.join(mxnet, "tools", "launch.py"), run_name="__main__")


def _interrupt(*_):
    raise KeyboardInterrupt


class _Process:
    """What the launcher knows of a process of the run."""

    def __init__(self, connection):
        self.connection, self.name, self.said, self.rank = connection, None, "", None

    @property
    def me(self):
        return "this worker" if self.rank is None else f"worker {self.rank}"

    def tell(self, line):
        try:
            self.connection.sendall(f"{line}\n".encode())
        except OSError:
            pass  # which is heard of, too


class _Jobs:
    """The processes of a run: who has come, who has ended, and how."""

    def __init__(self, server, num_workers, num_servers):
        self.server, self.num_workers = server, num_workers
        self.num_expected = num_workers + num_servers + 1
        self.host, port = server.getsockname()
        self._word = secrets.token_hex(8)
        self.address = f"{self.host}:{port}:{self._word}"
        self.processes, self.num_done, self.num_joined = [], 0, 0
        self.why, self.was_stopped, self._deadline = "", False, time.monotonic() + SECONDS_TO_JOIN
        self._select = selectors.DefaultSelector()
        self._select.register(server, selectors.EVENT_READ)

    def start(self, env, arguments):
        # in a session of its own: Ctrl-C reaches this process alone, which passes it on
        self._wheel = subprocess.Popen(
            arguments, env=env, stdin=subprocess.DEVNULL, start_new_session=True
        )

    def look_after(self):
        numbers = signal.SIGINT, signal.SIGTERM  # both, also where a shell has the first ignored
        old = [signal.signal(number, _interrupt) for number in numbers]
        try:
            while not self._is_over():
                try:
                    self._hear()
                except KeyboardInterrupt:
                    self._stop()
        finally:
            self._kill()
            for number, handler in zip(numbers, old, strict=True):
                signal.signal(number, handler)
        if self.why:
            raise RuntimeError(self.why)
        return not self.was_stopped

    def _hear(self):
        for key, _ in self._select.select(timeout=0.2):
            if key.fileobj is self.server:
                connection, _ = self.server.accept()
                keep_alive(connection)
                process = _Process(connection)
                self.processes.append(process)
                self._select.register(connection, selectors.EVENT_READ, process)
            else:
                self._hear_from(key.data)

    def _hear_from(self, process):
        try:
            content = process.connection.recv(4096)
        except OSError:
            content = b""
        *lines, process.said = (process.said + content.decode(errors="replace")).split("\n")
        for line in lines:
            if not self._take(process, line):
                content = b""  # none of ours
                break
        if not content or len(process.said) > 4096:
            self._gone(process)

    def _take(self, process, line):
        """Take what a process says; return whether it may say more."""
        word, _, rest = line.partition(" ")
        if process.name is None:
            if not secrets.compare_digest(word.encode(), self._word.encode()):
                return False
            role, _, host = rest.partition(" ")
            process.name = f"{'a' if role == 'worker' else 'the'} {role} on {host}"
            process.host, process.role = host, role
            self.num_joined += 1
        elif word == "rank":
            process.rank = int(rest)
            process.name = f"worker {rest} on {process.host}"
        elif word == "done":
            self.num_done += 1
            process.role = "done"
            if self.num_done == self.num_workers:  # servers and scheduler follow
                self._deadline = time.monotonic() + SECONDS_TO_END
        elif word == "failed":
            self._end(f"{process.name} ended with an error, said above")
        elif word == "stopped":
            self.was_stopped = True
            self._end("")
        return True

    def _gone(self, process):
        self._select.unregister(process.connection)
        self.processes.remove(process)
        process.connection.close()
        if process.name and process.role == "worker":
            self._end(f"{process.name} has died or cannot be reached")
        elif process.name and process.role != "done" and self.num_done < self.num_workers:
            self._end(f"{process.name} has died or cannot be reached")

    def _end(self, why):
        """Tell all that the run ends, and why."""
        if self.why or self.was_stopped and why:
            return
        self.why, self._deadline = why, time.monotonic() + SECONDS_TO_END
        for process in self.processes:
            others = f"{process.me} ends: {why}. " if why else ""
            others += "The same command goes on from the last checkpoint." if why else ""
            if process.role != "done" and not (self.was_stopped and process.rank == 0):
                process.tell(f"end {others}")

    def _stop(self):
        """Let worker 0 save the run; a second time, do not wait."""
        first = [process for process in self.processes if process.rank == 0]
        if self.was_stopped or not first:
            self._deadline = 0
        self.was_stopped = True
        for process in first:
            process.tell("stop")
        self._deadline = min(self._deadline, time.monotonic() + SECONDS_TO_SAVE)

    def _is_over(self):
        ended, late = self._wheel.poll() is not None, time.monotonic() > self._deadline
        if self.num_done == self.num_workers:
            return late or ended and not self.processes
        if self.why or self.was_stopped:
            return late or not self.processes
        if self.num_joined == self.num_expected:
            self._deadline = float("inf")
        elif late:
            self.why = (
                f"only {self.num_joined} of {self.num_expected} processes have started in "
                f"{SECONDS_TO_JOIN} seconds: see that ssh lets you in to each host without asking"
            )
        if ended and not self.processes:
            self.why = "a process could not be started, said above"
        return bool(self.why)

    def _kill(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._wheel.pid, number)
            except ProcessLookupError:
                break
            time.sleep(0.5)
        self._wheel.wait()
        for process in self.processes:
            process.connection.close()


if __name__ == "__main__":
    _run_the_wheels(*sys.argv[1:])
