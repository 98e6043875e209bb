"""Make the reference files of Keras: keras_resnet.npz and keras_block.npz.

In an environment of its own, with Python 3.11 (any backend of Keras will do):

    pip install keras==3.15.1 jax==0.10.2 numpy==2.4.6
    KERAS_BACKEND=jax python tests/reference/make_keras.py

keras_resnet.npz has for the network of 8 layers for CIFAR-10 `tensors` (the path and the shape of
each weight, a line each) and `Y`: what the network in inference mode makes of
`draw("X", (2, 16, 16, 3))` with the weights of `draw`.

keras_block.npz has the residual block, initialized by Keras and trained for a few
steps: `X`, each weight by its path, `inference` and `training` (its output in each mode),
`after/PATH`, the running averages after that one pass in training mode, `initial/PATH`, what its
second convolution began with, and `same`: what the block gives in inference mode if its strided
convolution pads by `padding="same"`. Images are NHWC.

Both state under `versions` what they were made with.
"""

import platform
from pathlib import Path

import keras
import numpy as np
from draw import draw
from keras import layers

FOLDER = Path(__file__).parent
VERSIONS = (
    f"keras {keras.__version__} on {keras.backend.backend()}, "
    f"numpy {np.__version__}, Python {platform.python_version()}"
)


def conv_bn(X, num_channels, kernel_size, strides, name):
    """A convolution and its batch normalization, named as in keras.applications.

    It pads by one pixel on each side. `padding="same"` would pad an image of even size at its right
    and lower edge alone where the stride is 2.
    """
    if kernel_size == 3:
        X = layers.ZeroPadding2D(1)(X)
    X = layers.Conv2D(num_channels, kernel_size, strides, use_bias=False, name=f"{name}_conv")(X)
    return layers.BatchNormalization(name=f"{name}_bn")(X)


def basic_block(X, num_channels, strides, name):
    Y = layers.ReLU()(conv_bn(X, num_channels, 3, strides, f"{name}_1"))
    Y = conv_bn(Y, num_channels, 3, 1, f"{name}_2")
    if X.shape != Y.shape:
        X = conv_bn(X, num_channels, 1, strides, f"{name}_0")
    return layers.ReLU()(layers.Add()([Y, X]))


def cifar_resnet(depth, num_classes=10):
    """The paper's network for small images, of ``depth`` = 6n + 2 layers."""
    inputs = keras.Input((None, None, 3))
    X = layers.ReLU()(conv_bn(inputs, 16, 3, 1, "conv1"))
    for stage, num_channels in enumerate((16, 32, 64), 2):
        for block in range((depth - 2) // 6):
            strides = 2 if stage > 2 and block == 0 else 1
            X = basic_block(X, num_channels, strides, f"conv{stage}_block{block + 1}")
    X = layers.GlobalAveragePooling2D()(X)
    return keras.Model(inputs, layers.Dense(num_classes, name="predictions")(X))


def reference_of_resnet():
    """Return names, shapes and an output of the network."""
    net = cifar_resnet(8)
    for weight in net.weights:
        weight.assign(draw(weight.path, tuple(weight.shape)))
    Y = net.predict(draw("X", (2, 16, 16, 3)), verbose=0)
    print(f"{len(net.weights)} tensors, outputs from {Y.min():.3f} to {Y.max():.3f}")
    tensors = [" ".join([w.path, *map(str, w.shape)]) for w in net.weights]
    return {"tensors": "\n".join(tensors), "Y": Y}


def residual(in_channels, num_channels, strides, same=False):
    """The residual block in Keras, with a 1x1 convolution on its shortcut."""
    X = inputs = keras.Input((6, 6, in_channels))
    if not same:
        X = layers.ZeroPadding2D(1)(X)
    padding = "same" if same else "valid"
    Y = layers.Conv2D(num_channels, 3, strides, padding, name="conv1")(X)
    Y = layers.ReLU()(layers.BatchNormalization(name="bn1")(Y))
    Y = layers.Conv2D(num_channels, 3, padding="same", name="conv2")(Y)
    Y = layers.BatchNormalization(name="bn2")(Y)
    Z = layers.Conv2D(num_channels, 1, strides, name="conv3")(inputs)
    return keras.Model(inputs, layers.ReLU()(layers.Add()([Y, Z])))


def reference_of_block():
    """Return weights, outputs and running averages of a block after a few steps of training."""
    keras.utils.set_random_seed(0)
    net, same = residual(3, 8, strides=2), residual(3, 8, strides=2, same=True)
    initial = {f"initial/{w.path}": w.numpy().copy() for w in net.get_layer("conv2").weights}
    X, target = draw("X", (4, 6, 6, 3)), np.random.default_rng(0).random((4, 3, 3, 8), np.float32)
    net.compile(keras.optimizers.SGD(0.1), "mse")
    net.fit(X, target, epochs=20, verbose=0)
    same.set_weights(net.get_weights())
    weights = {w.path: w.numpy().copy() for w in net.weights}
    inference, training, same = (
        keras.ops.convert_to_numpy(Y)
        for Y in (net(X, training=False), net(X, training=True), same(X, training=False))
    )
    after = {f"after/{w.path}": w.numpy() for w in net.weights if "moving" in w.path}
    outputs = {"inference": inference, "training": training, "same": same}
    return {"X": X, **weights, **outputs, **after, **initial}


if __name__ == "__main__":
    print(VERSIONS)
    np.savez_compressed(FOLDER / "keras_resnet.npz", versions=VERSIONS, **reference_of_resnet())
    np.savez_compressed(FOLDER / "keras_block.npz", versions=VERSIONS, **reference_of_block())
