"""Runs of several processes whose processes die, come late, meet, or lose the network."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as onp
import psutil
import pytest
from tiny_workers import tiny_workers, values

pytestmark = pytest.mark.faults

TESTS = Path(__file__).parents[1]
PROGRAM = str(TESTS / "tiny_workers.py")
EPOCHS = 60


@contextlib.contextmanager
def started(folder, *options, before=(), how=("-n", "2"), program=PROGRAM, env=None):
    """Start a run of two workers; it and all its processes have ended afterwards."""
    command = [*before, sys.executable, "-m", "d2lres", "launch", *how, "--", program]
    command += [str(folder / "out"), "--checkpoint", str(folder / "run"), *options]
    env = {**os.environ, **(env or {})}
    env.pop("OMP_NUM_THREADS", None)
    with open(folder / "said", "w+") as said:
        run = subprocess.Popen(command, env=env, stdout=said, stderr=subprocess.STDOUT)
        try:
            yield run
        finally:
            processes = nodes(run)
            run.kill()
            run.wait()
            _, alive = psutil.wait_procs(processes, timeout=40)
            assert not alive


def said(folder):
    return (folder / "said").read_text()


def nodes(run, role=None):
    """Return the workers, servers and schedulers of a run."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(run.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                is_node = "node" in process.cmdline() and process.name().startswith("python")
                if is_node and role in (None, process.environ()["DMLC_ROLE"]):
                    found.append(process)
    return found


def states(folder):
    return {path.name for path in (folder / "run").glob("*.safetensors")}


def wait_for_more(folder, run, seconds=100):
    """Wait until the run has saved another state."""
    before, until = states(folder), time.monotonic() + seconds
    while states(folder) <= before:
        assert run.poll() is None and time.monotonic() < until, said(folder)
        time.sleep(0.02)


def ends(run, seconds=60):
    start = time.monotonic()
    code = run.wait(seconds)
    return code, time.monotonic() - start


def assert_ends_like_one(folder, epochs):
    net, _ = tiny_workers(epochs=epochs)
    for rank in range(2):
        with onp.load(folder / f"out-{rank}.npz") as file:
            for name, value in values(net).items():
                onp.testing.assert_allclose(file[name], value, atol=1e-4)


@pytest.mark.parametrize("role", ["worker", "server", "scheduler"])
def test_a_process_is_killed_at_random_moments(tmp_path, faults, role):
    rng, options = random.Random(role), ("--slow", "--epochs", str(EPOCHS))
    for _ in range(10):
        with faults("workers", f"{role} killed"), started(tmp_path, *options) as run:
            wait_for_more(tmp_path, run)
            time.sleep(rng.uniform(0, 0.5))
            rng.choice(nodes(run, role)).send_signal(signal.SIGKILL)
            code, seconds = ends(run)
            text = said(tmp_path)
            assert code == 1 and seconds < 60, text
            survivors = [line for line in text.splitlines() if line.startswith("d2lres: worker")]
            survivors = [line for line in survivors if " ends: " in line]
            assert len(survivors) == 2 - (role == "worker"), text
            assert all(f"{role} " in line and "has died" in line for line in survivors), text
            assert all("goes on from the last checkpoint" in line for line in survivors)
    with started(tmp_path, "--epochs", str(EPOCHS), "--slow") as run:
        assert ends(run, 200)[0] == 0, said(tmp_path)
        assert "resuming from" in said(tmp_path)
    assert_ends_like_one(tmp_path, EPOCHS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_stop_saves_and_goes_on(tmp_path, faults, number):
    with faults("workers", number.name), started(tmp_path, "--slow", "--epochs", "20") as run:
        wait_for_more(tmp_path, run)
        run.send_signal(number)
        code, seconds = ends(run)
        assert "stopped in epoch" in said(tmp_path) and code == 1 and seconds < 30, said(tmp_path)
        assert "Traceback" not in said(tmp_path)
    with started(tmp_path, "--slow", "--epochs", "20") as run:
        assert ends(run, 100)[0] == 0 and "resuming from" in said(tmp_path)
    assert_ends_like_one(tmp_path, 20)


def test_the_launcher_is_killed(tmp_path, faults):
    with faults("workers", "launcher killed"), started(tmp_path, "--slow", "--epochs", "60") as run:
        wait_for_more(tmp_path, run)
        processes = nodes(run)
        run.kill()
        _, alive = psutil.wait_procs(processes, timeout=30)
        assert len(processes) == 4 and not alive
        assert "the launcher is gone" in said(tmp_path)


def test_a_worker_starts_late(tmp_path, faults):
    late = tmp_path / "late.py"
    late.write_text(
        "import os, runpy, sys, time\n"
        "time.sleep(15 if os.environ['DMLC_TASK_ID'] == '1' else 0)\n"
        f"sys.path.insert(0, {str(TESTS)!r})\n"
        f"runpy.run_path({PROGRAM!r}, run_name='__main__')\n"
    )
    with faults("workers", "late"), started(tmp_path, program=str(late)) as run:
        assert ends(run, 100)[0] == 0, said(tmp_path)
    assert_ends_like_one(tmp_path, 2)


def test_the_port_of_the_scheduler_is_taken(tmp_path, faults):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, socket\n"
        "if os.environ.get('DMLC_ROLE') == 'scheduler':\n"
        "    address = os.environ['DMLC_PS_ROOT_URI'], int(os.environ['DMLC_PS_ROOT_PORT'])\n"
        "    taken = socket.create_server(address)\n"
    )
    with (
        faults("workers", "port taken"),
        started(tmp_path, env={"PYTHONPATH": str(tmp_path)}) as run,
    ):
        assert ends(run)[0] == 1
        assert "the scheduler on 127.0.0.1 has died" in said(tmp_path), said(tmp_path)


def test_two_runs_at_once_on_one_machine(tmp_path, faults):
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    with (
        faults("workers", "two at once"),
        started(folders[0]) as first,
        started(folders[1]) as second,
    ):
        for folder, run in zip(folders, (first, second), strict=True):
            assert ends(run, 100)[0] == 0, said(folder)
            assert_ends_like_one(folder, 2)


# Two hosts, as far as the software can tell

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin")
ADDRESSES = {"d2lres-a": "10.77.0.1", "d2lres-b": "10.77.0.2"}


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def two_hosts(tmp_path):
    """Two network namespaces with addresses and sshd; how to start a run from the first."""
    if os.getuid() or not SSHD or not shutil.which("ip"):
        pytest.skip("needs to be root, iproute2 and openssh-server")
    a, b = ADDRESSES
    with contextlib.ExitStack() as stack:
        for name in ADDRESSES:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
        ip("link", "add", "veth-a", "netns", a, "type", "veth", "peer", "veth-b", "netns", b)
        for name, link in ((a, "veth-a"), (b, "veth-b")):
            ip("-n", name, "addr", "add", f"{ADDRESSES[name]}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
        for key in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key]
            subprocess.run(command, check=True)
        (tmp_path / "sshd").write_text(
            f"Port 2222\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\n"
            "StrictModes no\nUsePAM no\nPidFile none\nMaxStartups 50\nPermitRootLogin yes\n"
        )
        (tmp_path / "ssh_config").write_text(
            f"IdentityFile {tmp_path}/user\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n"
        )
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/ssh").write_text(
            f'#!/bin/sh\nexec /usr/bin/ssh -F {tmp_path}/ssh_config "$@"\n'
        )
        (tmp_path / "bin/ssh").chmod(0o755)
        Path("/run/sshd").mkdir(exist_ok=True)
        for name in ADDRESSES:
            command = ["ip", "netns", "exec", name, SSHD, "-D", "-e", "-f", str(tmp_path / "sshd")]
            with open(tmp_path / f"sshd-{name}", "w") as log:
                server = subprocess.Popen(command, stderr=log)
            stack.callback(server.wait)
            stack.callback(server.kill)
        (tmp_path / "hosts").write_text("".join(f"{x}:2222\n" for x in ADDRESSES.values()))
        time.sleep(1)
        yield {
            "before": ["ip", "netns", "exec", a],
            "how": ["-n", "2", "--hosts", str(tmp_path / "hosts")],
            "env": {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        }


def test_a_run_on_two_hosts_over_ssh(tmp_path, faults, two_hosts):
    with faults("workers", "two hosts"), started(tmp_path, **two_hosts) as run:
        assert ends(run, 100)[0] == 0, said(tmp_path)
    assert said(tmp_path).count("epoch 2") == 1
    assert_ends_like_one(tmp_path, 2)


def test_the_link_between_two_hosts_is_cut(tmp_path, faults, two_hosts):
    options = "--slow", "--epochs", "20"
    with faults("workers", "link cut"):
        with started(tmp_path, *options, **two_hosts) as run:
            wait_for_more(tmp_path, run)
            ip("-n", "d2lres-a", "link", "set", "veth-a", "down")
            code, seconds = ends(run)
            assert code == 1 and seconds < 60, said(tmp_path)
            assert "on 10.77.0.2 has died or cannot be reached" in said(tmp_path)
            time.sleep(max(0, 35 - seconds))  # the other side notices by itself
        ip("-n", "d2lres-a", "link", "set", "veth-a", "up")
        with started(tmp_path, *options, **two_hosts) as run:
            assert ends(run, 100)[0] == 0, said(tmp_path)
            assert "resuming from" in said(tmp_path)
    assert_ends_like_one(tmp_path, 20)
