"""The command line: ``python -m d2lres doctor | data | train | run``."""

import argparse
import sys


def main(argv: list[str] | None = None) -> int:
    """Run one command; return 0 if it went well."""
    parser = argparse.ArgumentParser(prog="python -m d2lres", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="what was found on this machine, and what is amiss")
    commands.add_parser("data", help="get Fashion-MNIST, if it is not there yet")
    training = commands.add_parser("train", help="train on Fashion-MNIST: by default ResNet-18")
    how = training.add_mutually_exclusive_group()
    how.add_argument("--scale", help="quick, lesson or full (see d2lres/scale.py)")
    how.add_argument("--recipe", choices=["fast"], help="a small network (see d2lres/recipe.py)")
    training.add_argument("--epochs", type=int, help="how long the recipe runs")
    training.add_argument(
        "--num-valid", type=int, help="test the recipe on so many training images kept aside"
    )
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    training.add_argument("--record", help="write the history to this JSON file")
    running = commands.add_parser("run", help="execute a lesson and write it as HTML under out/")
    running.add_argument("lesson", nargs="?", default="notebooks/03_fashion_mnist.ipynb")
    args = vars(parser.parse_args(argv))
    try:
        return int(not globals()[f"_{args.pop('command')}"](**args))
    except (ValueError, OSError) as error:
        print(f"d2lres: {error}", file=sys.stderr)
        return 1


def _doctor():
    from .runtime import doctor

    return doctor()


def _data():
    from .data import fetch_fashion_mnist

    print(fetch_fashion_mnist()[1])
    return True


def _train(scale, recipe, epochs, num_valid, seed, precision, record):
    if not recipe and (epochs or num_valid):
        raise ValueError("--epochs and --num-valid go with --recipe; a scale has its own sizes")
    if recipe:
        history = _fast(epochs, num_valid, seed, precision)
    else:
        history = _at_scale(scale, seed, precision)
    if record:
        print(f"recorded in {history.save(record)}")
    return True


def _fast(epochs, num_valid, seed, precision):
    from .recipe import FAST

    recipe = FAST._replace(num_epochs=epochs or FAST.num_epochs)
    print(recipe)
    history = recipe.run(seed, num_valid, precision)
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


def _run(lesson):
    from .lesson import run_lesson

    for path in run_lesson(lesson):
        print(f"written: {path}")
    return True


if __name__ == "__main__":
    sys.exit(main())
