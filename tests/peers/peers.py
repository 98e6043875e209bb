"""Run MXNet's own unit tests and the cells of the book, and compare with what old Python passed.

    python tests/peers/peers.py TESTS BOOK [--only WORD] [--record]

TESTS is the folder tests/python/unittest of MXNet at tag 1.9.1, BOOK a clone of the book; either
may be "". What passed on Python 3.11 with NumPy 1.23.5, without d2lres, stands in passed.json
(--record writes it); what cannot pass on a newer Python in excused.json, each with its reason.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from pathlib import Path

HERE = Path(__file__).parent
SECONDS = 1800  # for one file
ENVIRONMENT = {
    "MXNET_TEST_SEED": "1",
    "MXNET_MODULE_SEED": "1",
    "OMP_NUM_THREADS": "1",
    "MPLBACKEND": "agg",
    "MPLCONFIGDIR": str(Path(tempfile.gettempdir(), "peers-matplotlib")),  # fonts are listed once
    "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
}
PYTEST = ["-m", "pytest", "-n1", "-q", "-c", os.devnull, "-p", "no:cacheprovider", "-p", "around"]


def passed(path: Path, top: Path) -> list[str]:
    """Return which tests of a file, or cells of a chapter, pass; Python may end by a crash."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report")
        arguments = [HERE / "around.py", path, report]
        if path.suffix == ".py":
            arguments = [*PYTEST, f"--rootdir={top}", f"--junitxml={report}", path]
        else:
            Path(folder, "img").symlink_to(top / "img")
        process = [sys.executable, *map(str, arguments)]
        environment = {**os.environ, **ENVIRONMENT, "HOME": folder}
        try:
            subprocess.run(
                process, cwd=folder, env=environment, capture_output=True, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            pass
        if not report.exists():
            return []
        if path.suffix == ".md":
            return json.loads(report.read_text())
        cases = xml.etree.ElementTree.parse(report).iter("testcase")
        return sorted(case.get("name") for case in cases if len(case) == 0)


def main() -> str | None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests")
    parser.add_argument("book")
    parser.add_argument("--only", default="", help="files with this in their path")
    parser.add_argument("--record", action="store_true", help="write down what passes")
    given = parser.parse_args()
    record = HERE / "passed.json"
    expected = json.loads(record.read_text()) if record.exists() else {}
    excused = json.loads((HERE / "excused.json").read_text())
    lost, jobs = 0, {}
    with concurrent.futures.ThreadPoolExecutor(1 if given.record else os.cpu_count()) as pool:
        for top, files in [(given.tests, "test_*.py"), (given.book, "chapter_*/*.md")]:
            for path in sorted(Path(top).resolve().glob(files), key=os.path.getsize) if top else ():
                name = str(path.relative_to(Path(top).resolve()))
                if given.only in name and (given.record or expected.get(name)):
                    jobs[pool.submit(passed, path, Path(top).resolve())] = name
        for job in concurrent.futures.as_completed(jobs):
            name, now = jobs[job], job.result()
            print(f"{name}: {len(now)} pass", flush=True)
            if given.record:
                expected[name] = now
                lines = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(expected.items()))
                record.write_text("{\n" + ",\n".join(lines) + "\n}\n")
                continue
            for one in sorted(set(expected[name]) - set(now)):
                reason = excused.get(f"{name} {one}")
                lost += reason is None
                print(f"  {one} passed on the old Python: {reason or 'FAILS HERE'}", flush=True)
    return f"{lost} that passed on the old Python fail here" if lost else None


if __name__ == "__main__":
    sys.exit(main())
