"""A worker that runs a network in PyTorch: started by bench.py, which talks to it.

Usage: python workers_torch.py VARIANT WORKLOAD, where VARIANT is, for example,
"bfloat16 channels_last compile", or "peak", or "end_to_end" with a folder in WORKLOAD's place.
"""

import contextlib
import functools
import os
import sys

import torch
import torch._inductor.config
from protocol import WORKLOADS, Channel, Paced, best_gflops, serve
from torch import nn
from torch.nn import functional as F

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

# --- the networks


class Residual(nn.Module):
    """The residual block of the book, or, without biases, that of the paper."""

    def __init__(self, in_channels, num_channels, strides, bias):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, num_channels, 3, strides, 1, bias=bias)
        self.bn1 = nn.BatchNorm2d(num_channels)
        self.conv2 = nn.Conv2d(num_channels, num_channels, 3, 1, 1, bias=bias)
        self.bn2 = nn.BatchNorm2d(num_channels)
        self.shortcut = nn.Sequential()
        if in_channels != num_channels:
            self.shortcut.append(nn.Conv2d(in_channels, num_channels, 1, strides, bias=bias))
            if not bias:
                self.shortcut.append(nn.BatchNorm2d(num_channels))

    def forward(self, X):
        Y = F.relu(self.bn1(self.conv1(X)))
        return F.relu(self.bn2(self.conv2(Y)) + self.shortcut(X))


def build(network):
    """Build the network that d2lres has under the same name."""
    if network == "resnet18":
        stem = [nn.Conv2d(1, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        return _network(stem, (64, 128, 256, 512), 2, bias=True)
    n = (int(network.removeprefix("cifar_resnet")) - 2) // 6
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return _network(stem, (16, 32, 64), n, bias=False)


def _network(stem, channels, num_blocks, bias):
    blocks, in_channels = [], channels[0]
    for num_channels in channels:
        for _ in range(num_blocks):
            strides = 1 if num_channels == in_channels else 2
            blocks.append(Residual(in_channels, num_channels, strides, bias))
            in_channels = num_channels
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, 10)]
    return nn.Sequential(*stem, *blocks, *head)


# --- steps on one batch


def prepare(variant, workload):
    """Build a network in one variant and warm it up; return what ``serve`` needs."""
    precision, layout, how = variant.split()
    network, shape = WORKLOADS[workload]
    torch.manual_seed(0)
    X = torch.rand(shape).to(memory_format=LAYOUTS[layout])
    y = torch.randint(10, shape[:1])
    net = build(network).to(memory_format=LAYOUTS[layout])
    if how == "compile":  # weights are constants to inference, laid out once
        torch._inductor.config.freezing = True
    fast = torch.compile(net) if how == "compile" else net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    # a compiled network warns of inference_mode and is compiled anew; eager, it is the faster
    no_grad = torch.no_grad if how == "compile" else torch.inference_mode

    def autocast():
        if precision == "bfloat16":
            return torch.autocast("cpu", dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def train(steps):
        net.train()
        for _ in range(steps):
            optimizer.zero_grad()
            with autocast():
                l = F.cross_entropy(fast(X), y)
            l.backward()
            optimizer.step()

    def inference(steps):
        net.eval()
        with no_grad(), autocast():
            for _ in range(steps):
                fast(X)

    train(3)
    inference(2)
    return {"version": torch.__version__}, {"train": train, "inference": inference}


# --- a whole program, from the files to the accuracy


def end_to_end(folder, batch_size=256, resize=96):
    """Train on Fashion-MNIST as one does in PyTorch: four workers load, a plain loop trains."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    channel = Channel()
    channel.say()
    next(iter(channel))
    transform = transforms.Compose([transforms.Resize(resize), transforms.ToTensor()])
    images = datasets.FashionMNIST(folder, train=True, transform=transform)
    train_iter = DataLoader(images, batch_size, shuffle=True, num_workers=4)
    net = build("resnet18")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    loss_sum = hits = 0
    for X, y in Paced(train_iter, channel, wait=lambda: None):
        optimizer.zero_grad()
        Y_hat = net(X)
        l = F.cross_entropy(Y_hat, y)
        l.backward()
        optimizer.step()
        loss_sum += float(l) * len(y)
        hits += int((Y_hat.argmax(1) == y).sum())


def peak(precisions):
    """Return the best rate of a matrix product in each precision; there is nothing else to run."""

    def product(dtype, size):
        A = torch.ones(size, size, dtype=dtype)
        return lambda: A @ A

    kinds = {name: functools.partial(product, getattr(torch, name)) for name in precisions}
    rates = {name: best_gflops(kind, wait=lambda C: None) for name, kind in kinds.items()}
    return {"gflops": rates, "version": torch.__version__}, {}


def main(variant, workload):
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if variant == "end_to_end":
        end_to_end(workload)
    elif variant.startswith("peak"):
        serve(Channel(), lambda: peak(variant.split()[1:]))
    else:
        serve(Channel(), lambda: prepare(variant, workload))


if __name__ == "__main__":
    main(*sys.argv[1:])
