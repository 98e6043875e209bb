"""Make the reference file of the lessons' definitions in PyTorch, twins.npz.

In an environment of its own, with Python 3.11:

    pip install torch==2.13.0 numpy==2.4.6
    python tests/reference/make_twins.py [FILE]

For each network of NETS, with the weights of `draw`, the file has `NAME/shape` (that of its
images, `draw("X", shape)`), `NAME/inference` and `NAME/training` (its output in each mode) and
`NAME/stepped` (its output in training mode after one step of SGD, of the learning rate `NAME/lr`,
towards a target of `draw`); `NAME/tensors` (the name and the shape of each tensor in its state
dict, a line each), and `NAME/before` and `NAME/after`: at most 16 numbers of each of these tensors,
before and after the step, one after the other. What the other functions return is there by their
names, and what they were given: `scores`, `y`, `y_hat`.

`versions` states what it was made with.
"""

import platform
import sys
from pathlib import Path

import numpy as np
import torch
import twins
from draw import draw, sampled

VERSIONS = f"torch {torch.__version__}, numpy {np.__version__}, Python {platform.python_version()}"

NETS = {  # how it is built, and the shape of its images
    "Residual": (lambda: twins.Residual(3, 3), (4, 3, 6, 6)),
    "Residual 1x1": (lambda: twins.Residual(3, 8, use_1x1conv=True, strides=2), (4, 3, 7, 6)),
    "stem": (lambda: twins.stem(1, 16), (2, 1, 23, 24)),
    "resnet_block": (lambda: twins.resnet_block(8, 16, 2), (4, 8, 9, 8)),
    "resnet_block first": (lambda: twins.resnet_block(8, 8, 2, first_block=True), (4, 8, 6, 6)),
    "resnet18": (lambda: twins.resnet18(), (2, 1, 64, 64)),
    "make_conv": (lambda: twins.make_conv(6, 4, 3, 2), (4, 4, 7, 8)),
    "PadChannels": (lambda: twins.PadChannels(8, 4, 2), (4, 4, 7, 8)),
    "make_shortcut": (lambda: twins.make_shortcut(8, 4, 2, "B"), (4, 4, 7, 8)),
    "BasicBlock A": (lambda: twins.BasicBlock(8, 4, 2, shortcut="A"), (4, 4, 8, 8)),
    "BasicBlock B": (lambda: twins.BasicBlock(8, 4, 2), (4, 4, 8, 8)),
    "BasicBlock C": (lambda: twins.BasicBlock(8, 8, shortcut="C"), (4, 8, 8, 8)),
    "BasicBlock plain": (lambda: twins.BasicBlock(8, 4, 2, residual=False), (4, 4, 8, 8)),
    "make_stem imagenet": (lambda: twins.make_stem(8, "imagenet"), (2, 3, 24, 24)),
    "make_stage": (lambda: twins.make_stage(twins.BasicBlock, 8, 4, 2, 2), (4, 4, 8, 8)),
    "cifar_resnet": (lambda: twins.cifar_resnet(8), (2, 3, 16, 16)),
    "cifar_resnet preact": (lambda: twins.cifar_resnet(8, preact=True), (2, 3, 16, 16)),
    "cifar_resnet plain": (lambda: twins.cifar_resnet(8, residual=False), (2, 3, 16, 16)),
    "Bottleneck": (lambda: twins.Bottleneck(16, 8, 2), (4, 8, 8, 8)),
    "PreActResidual": (lambda: twins.PreActResidual(8, 8), (4, 8, 8, 8)),
    "PreActResidual A": (lambda: twins.PreActResidual(8, 4, 2, shortcut="A"), (4, 4, 8, 8)),
    "PreActResidual B": (lambda: twins.PreActResidual(8, 4, 2), (4, 4, 8, 8)),
}


def drawn(net):
    """Give a network the weights of ``draw``."""
    state = net.state_dict()
    net.load_state_dict({name: torch.tensor(draw(name, t.shape)) for name, t in state.items()})
    return net


def numbers(net):
    """Return some numbers of each tensor of a network, one after the other."""
    return np.concatenate([np.float32([]), *(sampled(t.numpy()) for t in weights(net).values())])


def weights(net):
    """Return the tensors of a network that other libraries have, too."""
    state = net.state_dict()
    return {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}


def reference_of(net, X):
    """Return what a network makes of images, and what one step of training makes of it."""
    net, before = drawn(net), {}
    with torch.no_grad():
        before["inference"] = net.eval()(X).numpy()
    before |= {"shape": X.shape, "before": numbers(net)}
    Y = net.train()(X)
    l = ((Y - torch.tensor(draw("target", tuple(Y.shape)))) ** 2).mean()
    if params := list(net.parameters()):
        l.backward()
        norm = torch.nn.utils.get_total_norm([param.grad for param in params])
        before["lr"] = 0.05 / float(norm)  # every network moves equally far
        torch.optim.SGD(params, before["lr"]).step()
    after = {"training": Y.detach().numpy(), "after": numbers(net)}
    with torch.no_grad():
        after["stepped"] = net(X).numpy()
    tensors = [" ".join([name, *map(str, t.shape)]) for name, t in weights(net).items()]
    return before | after | {"tensors": "\n".join(tensors)}


def results():
    """Return what the functions that are no networks return."""
    rng = np.random.default_rng(0)
    scores = torch.tensor(rng.random((50, 10), np.float32))
    y, y_hat = (torch.tensor(rng.integers(10, size=50)) for _ in range(2))
    net, X = drawn(twins.cifar_resnet(8)), torch.tensor(draw("X", (2, 3, 16, 16)))
    return {
        "confusion_matrix": twins.confusion_matrix(y, y_hat, 10).numpy(),
        "top_k_accuracy": [twins.top_k_accuracy(scores, y, k) for k in (1, 3, 10)],
        "grad_cam": twins.grad_cam(net, X, y[:2]).numpy(),
        "scores": scores.numpy(),
        "y": y.numpy(),
        "y_hat": y_hat.numpy(),
    }


if __name__ == "__main__":
    print(VERSIONS)
    reference = results()
    for name, (build, shape) in NETS.items():
        made = reference_of(build(), torch.tensor(draw("X", shape)))
        print(
            f"{name}: outputs to {abs(made['training']).max():.3f}, "
            f"moved by {abs(made['stepped'] - made['training']).max():.4f}"
        )
        reference |= {f"{name}/{key}": value for key, value in made.items()}
    path = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "twins.npz"
    np.savez_compressed(path, versions=VERSIONS, **reference)
