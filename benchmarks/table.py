"""The recorded speeds as Markdown; whatever compares two of them is computed here."""

PEERS = {"d2l": "the book's code", "model_zoo": "gluon.model_zoo", "plain": "plain, hybridized"}
BUSY_TORCH = "torch float32 contiguous eager"
MODES = {"train": "Training", "inference": "Inference"}


def tables(record):
    """Render a record of bench.py.

    Parameters
    ----------
    record : dict
        What a ``results/bench_*.json`` holds.

    Returns
    -------
    str
        The processor, a table for training and one for inference, and a list of what else was
        measured.
    """
    parts = [_processor(record)]
    parts += [_table(record, mode) for mode in MODES] if record["workloads"] else []
    notes = [
        _busy(record),
        _end_to_end(record),
        _memory(record),
        _data(record),
        _peak(record),
        _machine(record),
    ]
    return "\n".join(parts) + "\n" + "\n".join(n for n in notes if n) + "\n"


def _processor(record):
    machine = record["machine"]
    features = machine["cpu_features"].replace(" ", ", ") or "without AVX2"
    return f"**{machine['cpu']}: {features}**\n"


def _table(record, mode):
    head = [f"{MODES[mode]}: network, batch", "d2lres, images/s"]
    head += [f"against {name}" for name in PEERS.values()]
    head += ["against PyTorch's best", "of the peak"]
    rows = [head, ["---"] * len(head)]
    for workload in record["workloads"].values():
        rates = workload["images_per_s"][mode]
        our = rates["d2lres"]["median"]
        rows.append([_name(workload), f"{our:,.0f} ({workload['precision'][mode]})"])
        rows[-1] += [_times(our, rates.get(peer)) for peer in PEERS]
        rows[-1] += [_against_torch(our, rates), _share(record, workload, mode)]
        if "d2lres_float32" in rates:
            our = rates["d2lres_float32"]["median"]
            rows.append([f"{_name(workload)}, no bfloat16", f"{our:,.0f} (float32)"])
            rows[-1] += [_times(our, rates.get(peer)) for peer in PEERS]
            rows[-1] += [_against_torch(our, rates, "float32"), "–"]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _name(workload):
    images, _, *size = workload["shape"]
    return f"{workload['network']}, {images} x {size[0]}x{size[1]}"


def _times(our, peer):
    return f"{our / peer['median']:.2f}x" if peer else "–"


def against_torch(records, mode):
    """Return how many times as fast as PyTorch's fastest variant each network was."""
    workloads = (workload for record in records for workload in record["workloads"].values())
    both = [(w["images_per_s"][mode], _torch(w["images_per_s"][mode])) for w in workloads]
    return [rates["d2lres"]["median"] / rates[best]["median"] for rates, best in both if best]


def _torch(rates, precision=""):
    """Return the name of the fastest variant of PyTorch that has a precision, if there is one."""
    names = [name for name in rates if name.startswith(f"torch {precision}")]
    return max(names, key=lambda name: rates[name]["median"], default=None)


def _against_torch(our, rates, precision=""):
    best = _torch(rates, precision)
    return f"{_times(our, rates[best])} ({best.removeprefix('torch ')})" if best else "–"


def _share(record, workload, mode):
    """Return the share of the peak that the arithmetic of the convolutions alone comes to."""
    peak = record["peak_gflops"].get(workload["precision"][mode])
    return f"{_gflops(workload, mode) / peak:.0%}" if peak else "–"


def _gflops(workload, mode):
    rate = workload["images_per_s"][mode]["d2lres"]["median"]
    return 2e-9 * workload["multiply_adds_per_image"][mode] * rate


def _busy(record):
    each = []
    for workload, rates in record.get("busy", {}).items():
        our = rates["d2lres"]["median"]
        peers = {"one thread": rates["one thread"], "PyTorch as it comes": rates.get(BUSY_TORCH)}
        against = [f"{_times(our, rate)} {name}" for name, rate in peers.items() if rate]
        alone = rates["alone"]["median"]
        each.append(
            f"{workload} {our:,.0f} images/s, {our / alone:.0%} of what it is alone, "
            f"{', '.join(against)}"
        )
        if two := rates.get("two at once"):  # which older records lack
            together = two["median"] / alone
            each[-1] += f", two at once on a quiet machine together {together:.2f}x one alone"
    what = "Training in float32 beside another program that computes without a pause"
    return each and f"- {what}: {'; '.join(each)}."


def _end_to_end(record):
    if "end_to_end" not in record:
        return ""
    run = record["end_to_end"]
    rates = run["images_per_s"]
    our, book = (rates[name]["median"] for name in ("d2lres", "d2l"))
    torch = f", {_times(our, rates['torch'])} PyTorch's usual loop" if "torch" in rates else ""
    return (
        f"- From the files on (ResNet-18, Fashion-MNIST at {run['resize']}x{run['resize']}, "
        f"batches of {run['batch_size']}, loader, loop and metrics): {our:,.0f} images/s against "
        f"{book:,.0f} with the book's code, {our / book:.2f}x{torch}."
    )


def _memory(record):
    each = [
        f"{_name(workload)}: {memory['d2lres'] / memory['plain']:.2f}"
        for workload in record["workloads"].values()
        for memory in [workload["peak_memory_mb"]]
    ]
    return (
        each and f"- Peak memory of training, as a share of plain, hybridized: {'; '.join(each)}."
    )


def _data(record):
    """Say what making the batches costs: alone, and where it runs beside the training."""
    each = []
    for workload in record["workloads"].values():
        rate = {m: r["d2lres"]["median"] for m, r in workload["images_per_s"].items()}
        if "batches" in rate:
            alone, beside = rate["train"] / rate["batches"], rate["train"] / rate["train_fed"] - 1
            name = _name(workload) + ", shifted and flipped" * (workload["shape"][1] == 3)
            each.append(f"{name}: {alone:.1%} alone, {beside:+.1%} of a step beside it")
    return each and f"- Making the batches, as a share of a training step: {'; '.join(each)}."


def _peak(record):
    peaks = [f"{rate:,.0f} GFLOP/s in {name}" for name, rate in record["peak_gflops"].items()]
    each = [
        f"{_name(workload)} {_gflops(workload, 'train'):,.0f} and "
        f"{_gflops(workload, 'inference'):,.0f}"
        for workload in record["workloads"].values()
    ]
    does = each and (
        f" d2lres, training and inference, in GFLOP/s: {'; '.join(each)}. Products with padding "
        "count, computed or not, so that more than the peak can be reached."
    )
    return f"- The peak is the best matrix product: {', '.join(peaks)}.{does or ''}"


def _machine(record):
    machine, versions = record["machine"], record["versions"]
    torch = f", PyTorch {versions['torch']}" if versions["torch"] else ""
    return (
        f"- {machine['physical_cores']} cores, d2lres {machine['d2lres']}, "
        f"MXNet {versions['mxnet']}, d2l {versions['d2l']}{torch}; medians of rounds in turns: "
        f"`{record['command']}`."
    )
