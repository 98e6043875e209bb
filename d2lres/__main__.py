"""The command line: ``python -m d2lres COMMAND``."""

import argparse
import re
import sys


def main(argv: list[str] | None = None) -> int:
    """Run one command; return 0 if it went well."""
    parser = argparse.ArgumentParser(prog="python -m d2lres", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="what was found on this machine, and what is amiss")
    getting = commands.add_parser("data", help="get the data sets that are not there yet")
    names = ["fashion-mnist", "cifar-10", "cifar-100"]
    getting.add_argument("name", nargs="?", choices=names, help="only this one")
    training = commands.add_parser("train", help="train on Fashion-MNIST: by default ResNet-18")
    how = training.add_mutually_exclusive_group()
    how.add_argument("--scale", help="quick, lesson or full (see d2lres/scale.py)")
    how.add_argument("--recipe", choices=["fast"], help="a small network (see d2lres/recipe.py)")
    training.add_argument("--epochs", type=int, help="how long the recipe runs")
    training.add_argument(
        "--num-valid", type=int, help="test the recipe on so many training images kept aside"
    )
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--record", help="write the history to this JSON file")
    repeating = commands.add_parser("experiment", help="repeat one of the recorded runs")
    repeating.add_argument("name", help="see RECIPES in d2lres/recipe.py")
    repeating.add_argument("--seed", type=int, default=0)
    repeating.add_argument("--epochs", type=int, help="by default as many as were recorded")
    repeating.add_argument("--record", help="write the history to this JSON file")
    repeating.add_argument("--weights", help="write the network to this .safetensors file")
    for command in (training, repeating):
        command.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    transferring = commands.add_parser(
        "transfer", help="learn CIFAR-10 from few images, with the pre-trained weights and without"
    )
    transferring.add_argument("--record", default="results/transfer.json")
    predicting = commands.add_parser(
        "predict", help="what the pre-trained network takes pictures for, of the CIFAR-100 classes"
    )
    predicting.add_argument("images", nargs="+", metavar="IMAGE", help="a JPEG or PNG file")
    listing = commands.add_parser("summary", help="list the layers of a network")
    listing.add_argument("network", help="such as resnet18, resnet50 or cifar_resnet20")
    listing.add_argument("--input", required=True, help="channels x height x width: 3x224x224")
    listing.add_argument("--classes", type=int, help="by default what the network has in d2lres")
    listing.add_argument("--depth", type=int, help="1 takes stages together, 2 takes blocks")
    running = commands.add_parser("run", help="execute a lesson and write it as HTML under out/")
    running.add_argument("lesson", nargs="?", default="notebooks/03_fashion_mnist.ipynb")
    args = vars(parser.parse_args(argv))
    try:
        return int(not globals()[f"_{args.pop('command')}"](**args))
    except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and type(error) is not RuntimeError:
            raise  # MXNet's own, which needs its traceback
        print(f"d2lres: {error}", file=sys.stderr)
        return 1


def _doctor():
    from .runtime import doctor

    return doctor()


def _data(name):
    from .cifar import CIFAR10, CIFAR100, fetch_cifar
    from .fashion_mnist import fetch_fashion_mnist

    if name in (None, "fashion-mnist"):
        print(fetch_fashion_mnist()[1])
    for cifar in (CIFAR10, CIFAR100):
        try:
            if name in (None, cifar.name.lower()):
                print(fetch_cifar(cifar)[1])
        except FileNotFoundError as error:
            if name:
                raise
            print(error)  # the lessons do without
    return True


def _train(scale, recipe, epochs, num_valid, seed, precision, record):
    if not recipe and (epochs, num_valid) != (None, None):
        raise ValueError("--epochs and --num-valid go with --recipe; a scale has its own sizes")
    if recipe:
        history = _fast(epochs, num_valid, seed, precision)
    else:
        history = _at_scale(scale, seed, precision)
    if record:
        print(f"recorded in {history.save(record)}")
    return True


def _fast(epochs, num_valid, seed, precision):
    from .recipe import RECIPES

    recipe = RECIPES["fast"]
    if epochs is not None:
        recipe = recipe._replace(num_epochs=epochs)
    print(recipe)
    _, history = recipe.run(*recipe.load(num_valid), seed, precision)
    print(
        f"test accuracy {history.test_acc[-1]:.1%} after {sum(history.seconds):.0f} s of training"
    )
    return history


def _at_scale(scale, seed, precision):
    import mxnet as mx

    from . import load_data_fashion_mnist, resnet18, train
    from .scale import scale as scale_of

    size = scale_of(scale)
    print(size)
    train_iter, test_iter = load_data_fashion_mnist(
        size.batch_size, size.resize, num_train=size.num_train, num_test=size.num_test
    )
    net = resnet18()
    net.initialize(mx.init.Xavier())
    recipe = {"scheduler": size.scheduler(len(train_iter)), "precision": precision}
    history = train(net, train_iter, test_iter, size.num_epochs, size.lr, seed=seed, **recipe)
    history.run["scale"] = size.name
    return history


def _experiment(name, seed, epochs, record, weights, precision):
    from .experiment import experiment

    return len(experiment(name, seed, epochs, record, weights, precision))


def _predict(images):
    import numpy as np
    from mxnet import npx

    from . import CIFAR100_LABELS, CIFAR100_MEAN, CIFAR100_STD, ArrayIter, narrow_resnet18
    from .folder import read_image

    pixels = np.stack([read_image(path, 32) for path in images])
    normalize = (CIFAR100_MEAN, CIFAR100_STD)
    ((X, _),) = ArrayIter(pixels, np.zeros(len(images)), len(images), normalize=normalize)
    net = narrow_resnet18(pretrained=True)
    for path, p in zip(images, npx.softmax(net(X)).asnumpy(), strict=True):
        print(path, *(f"{p[i]:6.1%}  {CIFAR100_LABELS[i]}" for i in p.argsort()[:-6:-1]), sep="\n")
    return True


def _transfer(record):
    from .experiment import transfer_experiment

    return len(transfer_experiment(record))


def _summary(network, input, classes, depth):
    from . import summary

    if not re.fullmatch(r"[0-9]+(x[0-9]+)+", input):
        raise ValueError(f"--input is channels x height x width, like 3x224x224, not {input!r}")
    net = _network(network, {} if classes is None else {"num_classes": classes})
    print(summary(net, tuple(map(int, input.split("x"))), depth))
    return True


def _network(name, options):
    """Build a network by its name, which ends in its depth."""
    from . import models

    known = sorted((n for n in models.__all__ if re.fullmatch(r"resnet[0-9]+", n)), key=len)
    of_cifar = re.fullmatch(r"cifar_resnet([0-9]+)", name)
    if name not in known and not of_cifar:
        raise ValueError(
            f"there is no network {name!r}; there are {', '.join(known)} and cifar_resnet20 (32, "
            "44, 56, 110 or any 6n + 2)"
        )
    if options.get("num_classes", 1) < 1:
        raise ValueError(f"--classes is at least 1, not {options['num_classes']}")
    if of_cifar:
        return models.cifar_resnet(int(of_cifar[1]), **options)
    return getattr(models, name)(**options)


def _run(lesson):
    from .lesson import run_lesson

    for path in run_lesson(lesson):
        print(f"written: {path}")
    return True


if __name__ == "__main__":
    sys.exit(main())
