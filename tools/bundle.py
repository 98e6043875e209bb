"""Make one archive from which a class works without any network: `make bundle`.

It holds a clone of what is committed, in whose folder `offline/` lie the wheels of the lock, for
every supported Python on a system like this one, and the data sets that are found here; and the
site and the slides in `out/`. Where there is an `offline/`, the Makefile lets nothing be fetched.
"""

import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import platform_tags

from d2lres.data.cifar import CIFAR10, CIFAR100
from d2lres.data.fashion_mnist import FASHION_MNIST
from d2lres.runtime.obstacles import VERSIONS

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements-cpu.lock"


def clone(folder: Path) -> None:
    """Clone what is committed; the clone gets news from where this one does, or from nowhere."""
    git("clone", "--quiet", "--no-hardlinks", ROOT, folder)
    origin = subprocess.run(
        ["git", "-C", ROOT, "remote", "get-url", "origin"], capture_output=True, text=True
    )
    if origin.returncode == 0:
        git("-C", folder, "remote", "set-url", "origin", origin.stdout.strip())
    else:
        git("-C", folder, "remote", "remove", "origin")


def git(*arguments):
    subprocess.run(["git", *arguments], check=True)


def locked(lock: str, version: str) -> Iterator[str]:
    """Yield what a lock has for a version of Python, on this system, with its hashes."""
    python = {"python_version": version, "python_full_version": f"{version}.9"}
    for entry in lock.replace("\\\n", " ").splitlines():
        words = entry.partition(" --hash")[0]
        if entry[:1].isalnum():
            marker = Requirement(words.strip()).marker
            if marker is None or marker.evaluate(python):
                yield f"{words.partition(';')[0].strip()}{entry[len(words) :]}"


def fetch_wheels(folder: Path) -> None:
    """Fetch the wheels of the lock for every supported Python."""
    system = [word for tag in platform_tags() for word in ("--platform", tag)]
    with tempfile.TemporaryDirectory() as temporary:
        for version in VERSIONS:
            lines = Path(temporary, f"{version}.lock")
            lines.write_text("\n".join(locked(LOCK.read_text("utf-8"), version)), encoding="utf-8")
            options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]
            options += ["--python-version", f"{version}.9", *system, "--dest", folder, "-r", lines]
            subprocess.run([sys.executable, "-m", "pip", "download", *options], check=True)


def copy_data(folder: Path) -> None:
    """Copy the data sets that this machine has, and say which they are."""
    for source in (FASHION_MNIST, CIFAR10, CIFAR100):
        try:
            place, _ = source.find(offline=True)
        except FileNotFoundError as error:
            print(error)
            continue
        if place is source.sample:
            print(f"{source.name} is not on this machine: `make data` gets it")
            continue
        print(f"{source.name}: {place.name}")
        for path in source.all_paths(place).values():
            target = folder / source.folder / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def main():
    out = ROOT / "out"
    name = f"d2lres-{sys.platform}-{platform.machine()}"
    changed = subprocess.check_output(["git", "-C", ROOT, "status", "--porcelain"], text=True)
    if changed:
        print("What is changed and not committed is not in the bundle.")
    with tempfile.TemporaryDirectory(dir=out) as temporary:
        folder = Path(temporary, "d2lres")
        clone(folder)
        fetch_wheels(folder / "offline" / "wheels")
        copy_data(folder / "offline" / "data")
        for made in ("book", "slides"):
            shutil.copytree(out / made, folder / "out" / made)
        archive = out / f"{name}.tar.gz"
        with tarfile.open(archive, "w:gz", compresslevel=1) as tar:  # most is compressed already
            tar.add(folder, "d2lres")
    print(f"{archive}: {archive.stat().st_size / 1e6:,.0f} MB. Unpack it and call make lab in it.")


if __name__ == "__main__":
    main()
