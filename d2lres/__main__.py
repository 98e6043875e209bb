"""The command line: ``python -m d2lres COMMAND``."""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import sys


def main(argv: list[str] | None = None) -> int:
    """Run one command; return 0 if it went well."""
    if (argv or sys.argv[1:])[:1] == ["node"] and "DMLC_ROLE" in os.environ:  # by `launch`
        from .runs import node

        return node.run((argv or sys.argv[1:])[1:], main)
    if hasattr(sys.stdout, "reconfigure"):  # names may have what a terminal lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    _open_streams()
    try:
        try:
            args = vars(_parser().parse_args(argv))
            run = args.pop("run")
            return int(not run(**args))
        finally:
            _flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # who reads has read enough, as `head` does
        _give_up_output()
        return 128 + signal.SIGPIPE
    except (ValueError, OSError, FloatingPointError, ImportError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and type(error) is not RuntimeError:
            raise  # MXNet's own, which needs its traceback
        print(f"d2lres: {error}", file=sys.stderr)
        _give_up_output()
        return 1


def _open_streams():
    """Give streams that were closed (``>&-``) their place, which a file could take, or need."""
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:  # what is opened next has this number
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _flush():
    if sys.stdout is not None:
        sys.stdout.flush()


def _give_up_output():
    """Forget what could not be written: at its end, Python would try once more and complain."""
    try:
        _flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser():
    parser = argparse.ArgumentParser(prog="python -m d2lres", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name, run, help):
        added = commands.add_parser(name, help=help, description=help)
        added.set_defaults(run=run)
        return added.add_argument

    command("doctor", _doctor, "say what was found on this machine, and what is amiss")
    add = command("data", _data, "get the data sets that are not there yet")
    names = ["fashion-mnist", "cifar-10", "cifar-100"]
    add("name", nargs="?", choices=names, help="only this one: %(choices)s", metavar="NAME")
    add = command("train", _train, "train ResNet-18 on Fashion-MNIST")
    add("--scale", help="quick, lesson or full (see d2lres/course/sizes.py)")
    add("--seed", type=int, default=0, help="fixes the order of the images (default: 0)")
    add("--precision", default="auto", help="auto, float32 or bfloat16 (default: auto)")
    add("--record", help="write the history to this JSON file")
    add("--checkpoint", metavar="FOLDER", help="save the run there, and go on from what is there")
    about = "with whom (default: dist_sync in a run that was launched, else this process alone)"
    add("--kvstore", metavar="NAME", help=about)
    add = command("launch", _launch, "train in several processes, on one machine or on several")
    add("-n", type=int, dest="num_workers", required=True, help="workers")
    add("-s", type=int, dest="num_servers", default=1, help="servers (default: 1)")
    add("--hosts", metavar="FILE", help="over ssh on the hosts in its lines (default: here)")
    about = "such as: -- train --scale quick, or a program of your own: -- train.py"
    add("command", nargs="+", metavar="COMMAND", help=about)
    add = command("experiment", _experiment, "train by a recipe, and record the run")
    add("name", metavar="NAME", help="fast, for example: see RECIPES in d2lres/course/recipes.py")
    add("--seed", type=int, default=0, help="of the weights and the images (default: 0)")
    add("--epochs", type=int, dest="num_epochs", help="by default as many as the recipe says")
    add("--num-valid", type=int, help="test on so many training images kept aside")
    add("--precision", default="auto", help="auto, float32 or bfloat16 (default: auto)")
    add("--record", help="write the history to this JSON file (default: one under results/)")
    add("--weights", help="write the network to this .safetensors file")
    add = command(
        "transfer", _transfer, "learn CIFAR-10 from few images, pre-trained and from scratch"
    )
    add("--record", default="results/transfer.json", help="add the trials to this JSON file")
    add = command("predict", _predict, "say which of the CIFAR-100 classes pictures look like")
    add("images", nargs="+", metavar="IMAGE", help="a JPEG, PNG, GIF, BMP or WebP file")
    add = command("summary", _summary, "list the layers of a network")
    add("network", metavar="NETWORK", help="such as resnet18, resnet50 or cifar_resnet20")
    add("--input", required=True, help="channels x height x width: 3x224x224")
    add("--classes", type=int, help="by default what the network has in d2lres")
    add("--depth", type=int, help="1 takes stages together, 2 takes blocks")
    add = command("run", _run, "execute a lesson and write it as HTML under out/")
    default = "notebooks/03_fashion_mnist.ipynb"
    about = "a notebook, or the number of a lesson (default: 3)"
    add("lesson", nargs="?", default=default, metavar="LESSON", help=about)
    add = command("lesson", _lesson, "make and renew the copies of the lessons that you work in")
    actions = "copy those you do not have, update what is new in the course, or reset one"
    add("action", choices=["copy", "update", "reset"], metavar="ACTION", help=actions)
    about = "of the lesson to reset; your old copy is kept under another name"
    add("number", nargs="?", type=int, metavar="NUMBER", help=about)
    return parser


def _doctor():
    from . import doctor

    return doctor()


def _data(name):
    from .data.batches import source_line
    from .data.cifar import CIFAR10, CIFAR100
    from .data.fashion_mnist import FASHION_MNIST

    all_there = True
    for source in (FASHION_MNIST, CIFAR10, CIFAR100):
        if name not in (None, source.name.lower()):
            continue
        try:
            loaded = source.fetch()
        except (OSError, ValueError) as error:
            print(f"d2lres: {error}", file=sys.stderr)
            all_there = False
            continue
        counts = [(len(labels), len(labels)) for _, labels in loaded.sets]
        print(source_line(source.name, loaded.where, *counts))
        if loaded.is_sample:
            print(f"d2lres: of {source.name} only a sample is here", file=sys.stderr)
            all_there = False
    return all_there


def _train(scale, seed, precision, record, checkpoint, kvstore):
    import mxnet as mx

    from . import load_data_fashion_mnist, resnet18, train
    from .course.sizes import scale as scale_of
    from .files.whole import writable

    size, record = scale_of(scale), record and writable(record)
    print(size)
    num_workers = int(os.environ.get("DMLC_NUM_WORKER", 1))
    if num_workers > 1:
        kvstore = kvstore or "dist_sync"
    train_iter, test_iter = load_data_fashion_mnist(
        math.ceil(size.batch_size / num_workers),
        size.resize,
        num_train=size.num_train,
        num_test=size.num_test,
    )
    net = resnet18()
    net.initialize(mx.init.Xavier())
    recipe = {"scheduler": size.scheduler(math.ceil(len(train_iter) / num_workers))}
    recipe |= {"precision": precision, "checkpoint": checkpoint, "kvstore": kvstore}
    history = train(net, train_iter, test_iter, size.num_epochs, size.lr, seed=seed, **recipe)
    history.run["scale"] = size.name
    if record:
        print(f"recorded in {history.save(record)}")
    return True


def _launch(command, **how):
    from .runs.launch import launch

    return launch(command, **how)


def _experiment(**arguments):
    from .course.experiments import experiment

    return len(experiment(**arguments))


def _transfer(record):
    from .course.experiments import transfer_experiment

    return len(transfer_experiment(record))


def _predict(images):
    import numpy as np

    from .data.folder import read_image

    pixels = np.stack([read_image(path, 32) for path in images])

    from mxnet import npx  # which takes seconds to load

    from . import CIFAR100_LABELS, CIFAR100_MEAN, CIFAR100_STD, ArrayIter, narrow_resnet18
    from .files.whole import legible

    normalize = (CIFAR100_MEAN, CIFAR100_STD)
    ((X, _),) = ArrayIter(pixels, np.zeros(len(images)), len(images), normalize=normalize)
    net = narrow_resnet18(pretrained=True)
    for path, p in zip(images, npx.softmax(net(X)).asnumpy(), strict=True):
        best = (f"{p[i]:6.1%}  {CIFAR100_LABELS[i]}" for i in p.argsort()[:-6:-1])
        print(legible(path), *best, sep="\n")
    return True


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


def _lesson(action, number):
    from .course.copies import copy_lessons, reset_lesson

    if (action == "reset") != (number is not None):
        raise ValueError(
            "`lesson reset` takes the number of one lesson, the other actions take all"
        )
    done = reset_lesson(number) if number is not None else copy_lessons(update=action == "update")
    for line in done:
        print(line)
    return True


if __name__ == "__main__":
    sys.exit(main())
