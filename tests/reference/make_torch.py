"""Make the reference files of PyTorch: torch_resnets.npz and torch_block.npz.

In an environment of its own, with Python 3.11 (torchvision without its dependencies, because it is
only needed for what it builds):

    pip install torch==2.13.0 numpy==2.4.6
    pip install --no-deps torchvision==0.28.0 pillow
    python tests/reference/make_torch.py

torch_resnets.npz has for torchvision's networks of each depth, with 10 classes, `DEPTH/tensors`
(the name and the shape of each tensor in the state dict, a line each) and `DEPTH/Y`: what the
network in inference mode makes of `draw("X", (2, 3, 64, 64))` with the weights of `draw`.

torch_block.npz has the residual block, initialized by PyTorch and trained for a few
steps: `X`, each tensor of its state dict, `inference` and `training` (its output in each mode),
`after/NAME`, the running averages after that one pass in training mode, and `initial/NAME`, what
its second convolution began with.

Both state under `versions` what they were made with.
"""

import platform
from pathlib import Path

import numpy as np
import torch
from draw import draw
from torch.nn import functional as F
from twins import Residual

# torchvision's compiled operators, which no residual network uses, need not be there
for operator in ("nms", "qnms"):
    torch.library.define(f"torchvision::{operator}", "(Tensor a, Tensor b, float c) -> Tensor")
import torchvision  # noqa: E402

FOLDER = Path(__file__).parent
VERSIONS = (
    f"torch {torch.__version__}, torchvision {torchvision.__version__}, "
    f"numpy {np.__version__}, Python {platform.python_version()}"
)


def reference_of_resnet(depth):
    """Return names, shapes and an output of torchvision's network of ``depth`` layers."""
    net = getattr(torchvision.models, f"resnet{depth}")(num_classes=10).eval()
    state = net.state_dict()
    drawn = {name: torch.tensor(draw(name, tuple(t.shape))) for name, t in state.items()}
    net.load_state_dict(drawn)
    with torch.no_grad():
        Y = net(torch.tensor(draw("X", (2, 3, 64, 64)))).numpy()
    print(f"resnet{depth}: {len(state)} tensors, outputs from {Y.min():.3f} to {Y.max():.3f}")
    tensors = [" ".join([name, *map(str, t.shape)]) for name, t in state.items()]
    return {f"{depth}/tensors": "\n".join(tensors), f"{depth}/Y": Y}


def reference_of_block():
    """Return weights, outputs and running averages of a block after a few steps of training."""
    torch.manual_seed(0)
    net = Residual(3, 8, use_1x1conv=True, strides=2)
    initial = {
        f"initial/conv2.{name}": t.numpy().copy() for name, t in net.conv2.state_dict().items()
    }
    X, target = torch.tensor(draw("X", (4, 3, 6, 6))), torch.rand(4, 8, 3, 3)
    trainer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(20):
        trainer.zero_grad()
        F.mse_loss(net(X), target).backward()
        trainer.step()
    weights = {name: t.numpy().copy() for name, t in net.state_dict().items()}
    with torch.no_grad():
        inference = net.eval()(X).numpy()
        training = net.train()(X).numpy()
    after = {
        f"after/{name}": t.numpy() for name, t in net.state_dict().items() if "running" in name
    }
    outputs = {"inference": inference, "training": training}
    return {"X": X.numpy(), **weights, **outputs, **after, **initial}


if __name__ == "__main__":
    print(VERSIONS)
    resnets = {}
    for depth in (18, 34, 50, 101, 152):
        resnets |= reference_of_resnet(depth)
    np.savez_compressed(FOLDER / "torch_resnets.npz", versions=VERSIONS, **resnets)
    np.savez_compressed(FOLDER / "torch_block.npz", versions=VERSIONS, **reference_of_block())
