"""Which device MXNet can really compute on."""

import subprocess

from .obstacles import installed

__all__ = ["compute_on", "try_all_gpus", "try_gpu", "working_device"]


def try_gpu(i: int = 0):
    """Return GPU number ``i`` if MXNet can really compute on it, else the CPU.

    Where there is a GPU that cannot be used, one line says why.

    Parameters
    ----------
    i : int, default 0

    Returns
    -------
    mxnet.Context
        ``mx.gpu(i)`` or ``mx.cpu()``.

    Raises
    ------
    ValueError
        If ``i`` is negative.

    References
    ----------
    Dive into Deep Learning, section 6.7.
    """
    if i < 0:
        raise ValueError(f"i is the number of a GPU, 0 for the first, not {i}")
    device, why_not = working_device(i)
    if why_not:
        print(why_not, "Using the CPU.")
    return device


def try_all_gpus() -> list:
    """Return every GPU that MXNet can really compute on, or the CPU alone, as a list.

    References
    ----------
    Dive into Deep Learning, section 6.7.
    """
    import mxnet as mx

    try:
        gpus = [try_gpu(i) for i in range(mx.context.num_gpus())]
    except mx.MXNetError:  # there is a driver, and no device
        gpus = []
    return [gpu for gpu in gpus if gpu.device_type == "gpu"] or [try_gpu()]


def working_device(i: int) -> tuple:
    """Return the GPU or the CPU, and a sentence on a GPU that is there and cannot be used."""
    import mxnet as mx

    try:
        if i < mx.context.num_gpus():
            compute_on(mx.gpu(i))
            return mx.gpu(i), ""
        reason = None
    except mx.MXNetError as error:
        reason = str(error).strip().splitlines()[-1]
    gpus = _nvidia_gpus()
    if i < len(gpus):
        return mx.cpu(), f"{gpus[i][0]} cannot be used: {_why_not(gpus[i][1], reason)}"
    return mx.cpu(), ""


def compute_on(device) -> None:
    """Run a convolution and wait for its result: it needs the driver, a kernel and cuDNN."""
    import mxnet as mx

    X = mx.nd.ones((1, 1, 3, 3), ctx=device)
    w, b = mx.nd.ones((1, 1, 3, 3), ctx=device), mx.nd.zeros((1,), ctx=device)
    mx.nd.Convolution(X, w, b, kernel=(3, 3), num_filter=1).asnumpy()


def _nvidia_gpus() -> list[tuple[str, float]]:
    """Return name and compute capability of each GPU that NVIDIA's driver knows."""
    try:
        lines = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout.splitlines()
        return [(name, float(cap)) for name, cap in (line.split(", ") for line in lines)]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def _why_not(compute_capability, reason):
    """Say why MXNet cannot use a GPU that is there."""
    if "mxnet-cu112" not in installed():
        return "MXNet is installed for the CPU (`make clean`, then `make lab EXTRA=gpu`)."
    if compute_capability >= 9:
        return (
            f"its compute capability {compute_capability} is newer than the code in mxnet-cu112, "
            "which ends with 8.9."
        )
    if reason is None:
        return "MXNet does not see it: check that the driver works with `nvidia-smi`."
    return f"MXNet said: {reason}."
