"""What it costs to train in several processes, measured here and planned for more.

python benchmarks/cluster.py            measure on this machine, into results/cluster.json
python benchmarks/cluster.py --plan     write the tables of docs/cluster.md from that
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SPEED = ROOT / "results" / "bench_avx2_amd-epyc-family-23-model-1.json"
RECORD, PAGE = ROOT / "results" / "cluster.json", ROOT / "docs" / "cluster.md"
NETWORKS = ("small_resnet", "resnet18")
BATCH = 64  # images of a step
RESNET18 = 4 * 11_178_378  # bytes of its parameters
STEPS = 12


# --- the plan


def step_seconds(compute, num_bytes, num_workers, num_servers, bytes_per_second):
    """Return the seconds of a step, and those in it that messages take.

    Parameters
    ----------
    compute : float
        Seconds that a worker computes for its part of a batch.
    num_bytes : int
        Of all parameters: what each worker pushes, and pulls again.
    num_workers, num_servers : int
        Each worker and each server on a machine of its own.
    bytes_per_second : float
        Of a machine's link, in each direction.

    Notes
    -----
    A worker pushes when it has computed all gradients, and pulls when all workers have pushed. Each
    server takes its share of every worker's bytes: with fewer servers than workers, these wait.
    """
    messages = 0.0
    if num_workers > 1:
        messages = 2 * num_bytes / bytes_per_second * max(1, num_workers / num_servers)
    return compute + messages, messages


def efficiency(compute, num_bytes, num_workers, num_servers, bytes_per_second):
    """Return the images per second of each worker, as a share of what one alone computes."""
    return compute / step_seconds(compute, num_bytes, num_workers, num_servers, bytes_per_second)[0]


def plan(images_per_second):
    """Return the table for ResNet-18: each worker computes so many images a second alone."""
    compute = BATCH / images_per_second
    lines = ["| workers | servers | link | messages | efficiency | as fast as |"]
    lines += ["| ---: | ---: | --- | ---: | ---: | ---: |"]
    for gigabits in (1, 10):
        for num_workers in (8, 64, 512):
            for num_servers in (num_workers // 8, num_workers):
                where = num_workers, num_servers, gigabits * 1e9 / 8
                messages = step_seconds(compute, RESNET18, *where)[1]
                share = efficiency(compute, RESNET18, *where)
                lines.append(
                    f"| {num_workers} | {num_servers} | {gigabits} Gbit/s | {messages:.2f} s | "
                    f"{share:.0%} | {share * num_workers:.1f} workers |"
                )
    return "\n".join(lines)


def measured(record):
    """Return the table of what was measured."""
    lines = [
        "| network | bytes pushed in a step | one process | two workers | efficiency | messages |"
    ]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    for name, known in record["networks"].items():
        one, two = known["one"], known["two"]
        lines.append(
            f"| `{name}` | {known['bytes'] / 1e6:.1f} MB | {one:.3f} s | {two:.3f} s | "
            f"{one / two:.0%} | {known['messages']:.3f} s |"
        )
    return "\n".join(lines)


def with_tables(page):
    """Return the page with the tables that the records make."""
    workload = json.loads(SPEED.read_text())["workloads"]["resnet18_96"]
    tables = {"plan": plan(workload["images_per_s"]["train"]["d2lres"]["median"])}
    if RECORD.exists():
        tables["measured"] = measured(json.loads(RECORD.read_text()))
    for name, table in tables.items():
        marks = f"<!-- {name} -->\n", "<!-- end -->"
        page = re.sub(f"(?s){marks[0]}.*?{marks[1]}", f"{marks[0]}\n{table}\n\n{marks[1]}", page)
    return page


# --- the measurement


def worker(network):
    """Print what a step takes, and its messages: of this process, or of this worker."""
    import mxnet as mx
    import numpy as onp
    from mxnet import autograd, gluon, np, npx

    import d2lres

    npx.set_np()
    num = int(os.environ.get("DMLC_NUM_WORKER", 1))
    mx.random.seed(0)
    net = getattr(d2lres, network)()
    net.initialize(mx.init.Xavier())
    X = np.random.uniform(size=(BATCH // num, 1, 28, 28))
    y = np.array(onp.arange(len(X)) % 10)
    fast = d2lres.compile(net, X, "float32")
    from d2lres.runs.workers import workers_of

    workers = workers_of("dist_sync" if num > 1 else None)
    how = {"kvstore": workers.store, "update_on_kvstore": False}
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 1e-3}, **how)
    loss, seconds, messages = gluon.loss.SoftmaxCrossEntropyLoss(), [], []
    for _ in range(STEPS):
        start = time.perf_counter()
        with autograd.record():
            l = loss(fast(X), y)
        l.backward()
        npx.waitall()
        middle = time.perf_counter()
        trainer.allreduce_grads()
        npx.waitall()
        messages.append(time.perf_counter() - middle)
        trainer.update(BATCH)
        npx.waitall()
        seconds.append(time.perf_counter() - start)
    params = [p for p in net.collect_params().values() if p.grad_req != "null"]
    facts = {"seconds": float(onp.median(seconds[2:])), "messages": float(onp.median(messages[2:]))}
    facts["bytes"] = 4 * int(sum(p.data().size for p in params))
    if workers.rank == 0:
        print(json.dumps(facts))


def _run(*words, threads):
    env = os.environ | {"OMP_NUM_THREADS": str(threads)}
    run = subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stderr)
    return json.loads(run.stdout.splitlines()[-1])


def measure():
    """Measure each network with one process of two threads, and with two workers of one."""
    from d2lres.files.whole import written_whole
    from d2lres.runtime import machine

    networks = {}
    for network in NETWORKS:
        one = _run(__file__, "--worker", network, threads=2)
        launch = ["-m", "d2lres", "launch", "-n", "2", "--", __file__, "--worker", network]
        two = _run(*launch, threads=1)
        networks[network] = {
            "bytes": one["bytes"],
            "one": one["seconds"],
            "two": two["seconds"],
            "messages": two["messages"],
        }
        print(network, networks[network], flush=True)
    about = {"command": "python benchmarks/cluster.py", "batch": BATCH, "steps": STEPS}
    record = about | {"machine": machine.describe(), "networks": networks}
    with written_whole(RECORD) as file:
        file.write(json.dumps(record, indent=1).encode() + b"\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--worker", metavar="NETWORK")
    args = parser.parse_args()
    if args.worker:
        worker(args.worker)
    elif args.plan:
        page = with_tables(PAGE.read_text(encoding="utf-8"))
        PAGE.write_text(page, encoding="utf-8")
    else:
        measure()
