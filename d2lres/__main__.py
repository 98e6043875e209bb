"""The command line: ``python -m d2lres COMMAND``."""

from __future__ import annotations

import argparse
import re
import sys


def main(argv: list[str] | None = None) -> int:
    """Run one command; return 0 if it went well."""
    if hasattr(sys.stdout, "reconfigure"):  # names may have what a terminal lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    args = vars(_parser().parse_args(argv))
    run = args.pop("run")
    try:
        return int(not run(**args))
    except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and type(error) is not RuntimeError:
            raise  # MXNet's own, which needs its traceback
        print(f"d2lres: {error}", file=sys.stderr)
        return 1


def _parser():
    parser = argparse.ArgumentParser(prog="python -m d2lres", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(run, help):
        added = commands.add_parser(run.__name__.strip("_"), help=help, description=help)
        added.set_defaults(run=run)
        return added.add_argument

    command(_doctor, "say what was found on this machine, and what is amiss")
    add = command(_data, "get the data sets that are not there yet")
    add("name", nargs="?", choices=list(_SETS), help="only this one")
    add = command(_train, "train ResNet-18 on Fashion-MNIST")
    add("--scale", help="quick, lesson or full (see d2lres/course/sizes.py)")
    add("--seed", type=int, default=0, help="fixes the order of the images (default: 0)")
    add("--precision", default="auto", help="auto, float32 or bfloat16 (default: auto)")
    add("--record", help="write the history to this JSON file")
    add = command(_experiment, "train by a recipe and record the run")
    add("name", help="see RECIPES in d2lres/course/recipes.py")
    add("--seed", type=int, default=0, help="of the weights and the images (default: 0)")
    add("--epochs", type=int, dest="num_epochs", help="by default as many as were recorded")
    add("--num-valid", type=int, help="test on so many training images kept aside")
    add("--precision", default="auto", help="auto, float32 or bfloat16 (default: auto)")
    add("--record", help="write the history to this JSON file")
    add("--weights", help="write the network to this .safetensors file")
    add = command(_transfer, "learn CIFAR-10 from few images, pre-trained and from scratch")
    add("--record", default="results/transfer.json", help="write the trials to this JSON file")
    add = command(_predict, "say which of the CIFAR-100 classes pictures look like")
    add("images", nargs="+", metavar="IMAGE", help="a JPEG, PNG, GIF, BMP or WebP file")
    add = command(_summary, "list the layers of a network")
    add("network", help="such as resnet18, resnet50 or cifar_resnet20")
    add("--input", required=True, help="channels x height x width: 3x224x224")
    add("--classes", type=int, help="by default what the network has in d2lres")
    add("--depth", type=int, help="1 takes stages together, 2 takes blocks")
    add = command(_run, "execute a lesson and write it as HTML under out/")
    add(
        "lesson",
        nargs="?",
        default="notebooks/03_fashion_mnist.ipynb",
        help="a notebook, or its number",
    )
    return parser


def _doctor():
    from . import doctor

    return doctor()


_SETS = {"fashion-mnist": "FASHION_MNIST", "cifar-10": "CIFAR10", "cifar-100": "CIFAR100"}


def _data(name):
    from .data import cifar, fashion_mnist
    from .data.batches import source_line

    missing = False
    for known, source in _SETS.items():
        if name in (None, known):
            source = getattr(fashion_mnist, source, None) or getattr(cifar, source)
            try:
                loaded = source.fetch()
            except FileNotFoundError as error:
                missing = True
                print(f"d2lres: {error}", file=sys.stderr)
                continue
            counts = [(len(labels), len(labels)) for _, labels in loaded.sets]
            print(source_line(source.name, loaded.where, *counts))
            missing |= loaded.is_sample
    return not missing


def _train(scale, seed, precision, record):
    history = _at_scale(scale, seed, precision)
    if record:
        print(f"recorded in {history.save(record)}")
    return True


def _at_scale(scale, seed, precision):
    import mxnet as mx

    from . import load_data_fashion_mnist, resnet18, train
    from .course.sizes import scale as scale_of

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


def _experiment(**arguments):
    from .course.experiments import experiment

    return len(experiment(**arguments))


def _predict(images):
    import numpy as np
    from mxnet import npx

    from . import CIFAR100_LABELS, CIFAR100_MEAN, CIFAR100_STD, ArrayIter, narrow_resnet18
    from .data.folder import read_image

    pixels = np.stack([read_image(path, 32) for path in images])
    normalize = (CIFAR100_MEAN, CIFAR100_STD)
    ((X, _),) = ArrayIter(pixels, np.zeros(len(images)), len(images), normalize=normalize)
    net = narrow_resnet18(pretrained=True)
    for path, p in zip(images, npx.softmax(net(X)).asnumpy(), strict=True):
        print(path, *(f"{p[i]:6.1%}  {CIFAR100_LABELS[i]}" for i in p.argsort()[:-6:-1]), sep="\n")
    return True


def _transfer(record):
    from .course.experiments import transfer_experiment

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
    from .course.lessons import run_lesson

    for path in run_lesson(lesson):
        print(f"written: {path}")
    return True


if __name__ == "__main__":
    sys.exit(main())
