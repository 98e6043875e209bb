"""Grad-CAM: where in an image the evidence for a class is."""

import functools

from mxnet import autograd, npx

from .train import _check_images, _check_labels

__all__ = ["grad_cam"]

npx.set_np()


def _explained(cam):
    """Check what is asked for: a decorator, as ``cam`` stands word for word in a lesson."""

    @functools.wraps(cam)
    def checked_cam(net, X, y):
        _check_images(X, "grad_cam")
        if y.shape != (len(X),):
            raise ValueError(
                f"expected one class for each of the {len(X)} images, y of shape ({len(X)},), but "
                f"got shape {y.shape}"
            )
        _check_labels(y, net[-1].weight.shape[0])
        return cam(net, X, y)

    return checked_cam


@_explained
def grad_cam(net, X, y):
    """Return heat maps: how much each place of the last feature maps speaks for a class.

    The channels are weighted by the mean gradient of the class's score, added up, and what speaks
    against the class is cut off at zero.

    Parameters
    ----------
    net : HybridSequential
        A trained network whose last two elements are its pooling and its dense layer, as all of
        ``d2lres`` are.
    X : float32 array, shape (batch, channels, height, width)
    y : int array, shape (batch,)
        The class asked about in each image: its own, the predicted one, or any other.

    Returns
    -------
    float32 array, shape (batch, map_height, map_width)
        Not negative; of the size of the last feature maps.

    Raises
    ------
    ValueError
        If X is not a batch of images, there is not one class for each, or one is out of range.

    References
    ----------
    Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization (2017), section 3.
    """
    body, head = net[:-2], net[-2:]
    maps = body(X)
    maps.attach_grad()
    with autograd.record(train_mode=False):
        score = npx.pick(head(maps), y)
    score.backward()
    weights = maps.grad.mean(axis=(2, 3), keepdims=True)
    return npx.relu((weights * maps).sum(axis=1))
