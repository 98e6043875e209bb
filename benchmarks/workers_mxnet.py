"""A worker that runs a network in MXNet: started by bench.py, which talks to it.

Usage: python workers_mxnet.py PEER WORKLOAD [PRECISION]
"""

import contextlib
import itertools
import sys

from protocol import WORKLOADS, Channel, Paced, best_gflops, peak_memory, serve


def leave_the_settings_alone():
    """Let MXNet import as it does under d2lres, but without the settings of d2lres.

    The driver gives peers their number of threads, but for the book's code, which is measured as it
    comes: MXNet then takes half of the logical processors (src/engine/openmp.cc:
    ``omp_get_num_procs() >> 1`` on x86), for which OMP_NUM_THREADS must not be set at all.
    """
    from d2lres.runtime import hook

    hook.prepare = lambda: None


# --- the networks


def d2l_resnet18():
    """Build the network of the book, section 8.6, from the book's own block."""
    from d2l import mxnet as d2l
    from mxnet.gluon import nn

    def resnet_block(num_channels, num_residuals, first_block=False):
        blk = nn.Sequential()
        for i in range(num_residuals):
            if i == 0 and not first_block:
                blk.add(d2l.Residual(num_channels, use_1x1conv=True, strides=2))
            else:
                blk.add(d2l.Residual(num_channels))
        return blk

    net = nn.Sequential()
    net.add(
        nn.Conv2D(64, kernel_size=7, strides=2, padding=3),
        nn.BatchNorm(),
        nn.Activation("relu"),
        nn.MaxPool2D(pool_size=3, strides=2, padding=1),
        resnet_block(64, 2, first_block=True),
        resnet_block(128, 2),
        resnet_block(256, 2),
        resnet_block(512, 2),
        nn.GlobalAvgPool2D(),
        nn.Dense(10),
    )
    return net


def model_zoo(network):
    """Build the nearest network of Gluon's model zoo, hybridized."""
    from mxnet.gluon.model_zoo import vision

    if network == "resnet18":
        net = vision.resnet18_v1(classes=10)
    else:  # there is no ready one; its small stem has neither batch normalization nor ReLU
        n = (int(network.removeprefix("cifar_resnet")) - 2) // 6
        block, channels = vision.BasicBlockV1, [16, 16, 32, 64]
        net = vision.ResNetV1(block, [n, n, n], channels, classes=10, thumbnail=True)
    net.hybridize(static_alloc=True, static_shape=True)
    return net


def ours(network):
    """Build the network of d2lres."""
    import d2lres

    if network == "resnet18":
        return d2lres.resnet18()
    return d2lres.cifar_resnet(int(network.removeprefix("cifar_resnet")))


# --- steps on one batch


def prepare(peer, workload, precision, look):
    """Build the network of a peer and warm it up; return what ``serve`` needs.

    ``look`` is called before each step of training, as ``d2lres.train`` does.
    """
    import mxnet as mx
    import numpy as onp

    network, shape = WORKLOADS[workload]
    rng = onp.random.default_rng(0)
    array = mx.nd.array if peer == "model_zoo" else mx.np.array  # the zoo's interface is the old
    X = array(rng.random(shape, dtype=onp.float32))
    y = array(rng.integers(10, size=shape[0]), dtype="int32")
    builders = {"d2l": d2l_resnet18, "model_zoo": lambda: model_zoo(network)}
    net = builders.get(peer, lambda: ours(network))()
    net.initialize(mx.init.Xavier())
    fast, about = net, {}
    if peer == "plain":
        net.hybridize(static_alloc=True, static_shape=True)
    elif peer.startswith("d2lres"):
        fast, about = compiled(net, X, precision)
    runs = runs_of(fast, gluon_trainer(net, X), X, y, look)
    runs["train"](3)
    about["memory_mb"] = peak_memory()
    runs["inference"](2)
    if peer == "d2lres":
        runs |= runs_with_data(runs.pop("step"), shape)
    runs.pop("step", None)
    return about, runs


def compiled(net, X, precision):
    """Compile a network; return it and what is to be known of it."""
    import d2lres

    fast = d2lres.compile(net, X, precision)
    layers = d2lres.summary(net, X.shape[1:])
    counts = {"inference": layers.multiply_adds, "train": layers.training_multiply_adds}
    precisions = {"inference": fast.inference_precision, "train": fast.precision}
    return fast, {"precision": precisions, "multiply_adds_per_image": counts}


def gluon_trainer(net, X):
    """Return the optimizer of a network whose shapes may still be open."""
    from mxnet import gluon

    if any(param._deferred_init for param in net.collect_params().values()):
        net(X[:1])
    return gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01})


def runs_of(net, trainer, X, y, look):
    """Return the runs of training and of inference on one batch, and a step of training."""
    import mxnet as mx

    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()

    def step(X, y):
        look()
        with mx.autograd.record():
            l = loss(net(X), y)
        l.backward()
        trainer.step(len(y))

    def train(steps):
        for _ in range(steps):
            step(X, y)
        mx.nd.waitall()

    def inference(steps):
        for _ in range(steps):
            net(X)
        mx.nd.waitall()

    return {"train": train, "inference": inference, "step": step}


def runs_with_data(step, shape):
    """Return the run of training on batches that are made meanwhile, and of making them alone.

    Grey images are resized as those of Fashion-MNIST, those in colour are shifted and flipped.
    """
    import mxnet as mx
    import numpy as onp

    from d2lres import ArrayIter, Compose, RandomCrop, RandomFlip

    batch_size, channels, *resize = shape
    of_data, augment = (60_000, 1, 28, 28), None
    if channels == 3:
        of_data, augment = (50_000, 3, 32, 32), Compose([RandomCrop(padding=4), RandomFlip()])
    images = onp.random.default_rng(0).integers(256, size=of_data, dtype=onp.uint8)
    labels = onp.arange(len(images)) % 10
    data = ArrayIter(images, labels, batch_size, resize=resize, shuffle=True, augment=augment)
    endless = (batch for _ in iter(int, 1) for batch in data)

    def train_fed(steps):
        for X, y in itertools.islice(endless, steps):
            step(X, y)
        mx.nd.waitall()

    def batches(steps):
        for _ in itertools.islice(endless, steps):
            mx.nd.waitall()

    return {"train_fed": train_fed, "batches": batches}


# --- a whole program, from the files to the accuracy


def end_to_end(peer, channel, batch_size=256, resize=96):
    """Train on Fashion-MNIST, with the loader and the loop of d2lres or with those of the book."""
    import mxnet as mx

    paced = {"channel": channel, "wait": mx.nd.waitall}
    channel.say()
    next(iter(channel))
    if peer == "d2lres":
        import d2lres

        net = d2lres.resnet18()
        net.initialize(mx.init.Xavier())
        train_iter, test_iter = d2lres.load_data_fashion_mnist(batch_size, resize)
        d2lres.train(net, Paced(train_iter, **paced), test_iter, 1, 0.05, mx.cpu())
    else:
        from d2l import mxnet as d2l

        mx.gluon.data.vision.FashionMNIST = fashion_mnist_without_download()
        train_iter, test_iter = d2l.load_data_fashion_mnist(batch_size, resize)
        d2l.train_ch6(d2l_resnet18(), Paced(train_iter, **paced), test_iter, 1, 0.05, mx.cpu())


def fashion_mnist_without_download():
    """Return MXNet's data set, whose address is dead, with the images that d2lres found.

    Only the reading of the files is replaced. The book's transforms, its loader and the loader's
    four worker processes are what they are.
    """
    import mxnet as mx

    from d2lres import load_data_fashion_mnist

    parts = load_data_fashion_mnist(256)

    class FashionMNIST(mx.gluon.data.vision.FashionMNIST):
        def _get_data(self):
            part = parts[0 if self._train else 1]
            images = part.images.reshape(-1, 28, 28, 1)
            self._data = mx.np.array(images, dtype=images.dtype)
            self._label = mx.np.array(part.labels, dtype=part.labels.dtype)

    return FashionMNIST


def peak():
    """Return the best rate of a matrix product in float32; there is nothing else to run."""
    import mxnet as mx

    def product(size):
        A = mx.np.ones((size, size))
        return lambda: mx.np.dot(A, A)

    return {"gflops": {"float32": best_gflops(product, lambda C: C.wait_to_read())}}, {}


def main(peer, workload, precision="auto"):
    channel = Channel()
    if not peer.startswith("d2lres"):
        leave_the_settings_alone()
    from mxnet import npx  # now: the driver lets all workers import at the same time

    if peer == "d2l":
        import d2l.mxnet  # noqa: F401

        npx.set_np()  # as the book's first cell does
    if peer.startswith("d2lres") or peer == "plain":
        import d2lres.training  # noqa: F401
    if workload == "end_to_end":
        end_to_end(peer, channel)
    elif peer == "peak":
        serve(channel, peak)
    else:
        with following(peer) as look:
            serve(channel, lambda: prepare(peer, workload, precision, look))


@contextlib.contextmanager
def following(peer):
    """Yield what lets the threads follow what other programs leave, if this is d2lres."""
    if not peer.startswith("d2lres"):
        yield lambda: None
        return
    import mxnet as mx

    from d2lres.runtime import cores

    with cores.computing([mx.cpu()]) as threads:
        yield threads.look


if __name__ == "__main__":
    main(*sys.argv[1:])
