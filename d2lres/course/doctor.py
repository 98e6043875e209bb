"""What was found on this machine, and what to do where something is amiss."""

import os
import platform
import time

from ..data.cifar import CIFAR10, CIFAR100
from ..data.fashion_mnist import FASHION_MNIST
from ..files.whole import shown
from ..runtime import cores, devices, hook, machine

__all__ = ["doctor"]


def doctor() -> bool:
    """Print what was found and what to do where something is amiss; return whether MXNet works."""
    amiss, gpu = machine.in_the_way(), "not tried"
    if not amiss:
        try:
            device, why_not = devices.working_device(0)
            devices.compute_on(device)
            gpu = why_not or ("none" if device.device_type == "cpu" else f"{device}, which works")
        except Exception as error:
            amiss = [f"MXNet does not work: {error}"]
    about, (data, data_advice), others = machine.describe(), _data(), _others()
    found = {
        "d2lres": about["d2lres"],
        "MXNet": about["mxnet"] or "not found",
        "NumPy": about["numpy"],
        "Python": f"{about['python']} on {about['system']}",
        "CPU": f"{about['cpu']} ({about['cpu_features'] or 'without AVX2'})",
        "cores": f"{_cores(about['physical_cores'])} for this process",
        "threads": _threads(),
        "others": f"other programs use {others:.1f} cores now",
        "AMX": about["amx"],
        "GPU": gpu,
        **data,
    }
    for name, value in found.items():
        print(shown(f"{name:14}{value}"))
    advice = _advice(others, follows=not amiss and cores.may_follow()) + data_advice
    for sentence in [f"amiss: {s}" for s in amiss] + [f"advice: {s}" for s in advice]:
        print(shown(sentence))
    if not amiss + advice:
        print("all is well")
    return not amiss


def _cores(number):
    return f"{number} physical core{'s' * (number > 1)}"


def _threads():
    """Say how many threads MXNet takes, and by whose choice."""
    given = os.environ.get("OMP_NUM_THREADS")
    if not given or "OMP_NUM_THREADS" in hook.chosen:
        return f"{given or machine.physical_cores()}, one for each physical core"
    return f"{given}, set by OMP_NUM_THREADS"


def _others():
    watch = cores.Watch()
    time.sleep(cores.SECONDS)
    return watch.others()


def _data():
    """Say where each data set is found, without fetching it, and what to do if it is not whole."""
    found, advice = {}, []
    for source in (FASHION_MNIST, CIFAR10, CIFAR100):
        try:
            place, _ = source.find(offline=True)
            found[source.name] = f"{place.name}, {place.folder}"
            source.all_paths(place)
        except FileNotFoundError as error:
            if source.name in found:  # in part
                advice.append(str(error))
            else:
                found[source.name] = "not found; lessons use Fashion-MNIST in its place"
        else:
            if place is source.sample:
                cure = "is not on this machine, only a sample of it: run `make data`."
                advice.append(f"{source.name} {cure}")
    return found, advice


def _advice(others, follows):
    """Say what could be faster: a sentence with the cure for each thing."""
    found, num_cores = [], machine.physical_cores()
    left = max(1, round(cores.left(num_cores, others)))
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads) > num_cores:
        found.append(
            f"OMP_NUM_THREADS is {threads}, but this process may use {_cores(num_cores)}, and "
            "threads that share a core slow each other: unset it."
        )
    if left < num_cores:
        meanwhile, cure = "a thread that waits for its core holds up all others", "end them"
        if follows:
            meanwhile = f"train and evaluate_accuracy take threads={left} as long as they do"
        else:
            cure += f", or start with OMP_NUM_THREADS={left}"
        found.append(f"other programs compute, and {meanwhile}: {cure}.")
    if machine.amx() in (machine.REFUSED, machine.TOO_LATE):
        found.append(machine.advice_on_amx())
    if platform.machine() in ("x86_64", "AMD64") and "avx2" not in machine.cpu_features():
        found.append(
            "this processor has no AVX2, and convolutions are slow without: run the lessons with "
            "D2LRES_SCALE=quick, or on a newer machine."
        )
    return found
