"""What the lessons define, in PyTorch: the code under "The same in PyTorch", word for word."""

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    """The residual block in PyTorch."""

    def __init__(self, in_channels, num_channels, use_1x1conv=False, strides=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, num_channels, 3, padding=1, stride=strides)
        self.conv2 = nn.Conv2d(num_channels, num_channels, 3, padding=1)
        self.conv3 = None
        if use_1x1conv:
            self.conv3 = nn.Conv2d(in_channels, num_channels, 1, stride=strides)
        self.bn1 = nn.BatchNorm2d(num_channels)
        self.bn2 = nn.BatchNorm2d(num_channels)

    def forward(self, X):
        Y = F.relu(self.bn1(self.conv1(X)))
        Y = self.bn2(self.conv2(Y))
        if self.conv3:
            X = self.conv3(X)
        return F.relu(Y + X)


def stem(in_channels, num_channels=64):
    return nn.Sequential(
        nn.Conv2d(in_channels, num_channels, kernel_size=7, stride=2, padding=3),
        nn.BatchNorm2d(num_channels),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
    )


def resnet_block(in_channels, num_channels, num_residuals, first_block=False):
    blks = [Residual(num_channels, num_channels) for _ in range(num_residuals)]
    if not first_block:
        blks[0] = Residual(in_channels, num_channels, use_1x1conv=True, strides=2)
    return nn.Sequential(*blks)


def resnet18(num_classes=10, in_channels=1):
    return nn.Sequential(
        stem(in_channels, 64),
        resnet_block(64, 64, 2, first_block=True),
        resnet_block(64, 128, 2),
        resnet_block(128, 256, 2),
        resnet_block(256, 512, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, num_classes),
    )


def confusion_matrix(y, y_hat, num_classes):
    pairs = y * num_classes + y_hat
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def make_conv(num_channels, in_channels, kernel_size, strides=1):
    padding = kernel_size // 2
    return nn.Conv2d(in_channels, num_channels, kernel_size, strides, padding, bias=False)


class PadChannels(nn.Module):
    def __init__(self, num_channels, in_channels, strides):
        super().__init__()
        self.missing, self.strides = num_channels - in_channels, strides

    def forward(self, X):
        X = X[:, :, :: self.strides, :: self.strides]
        return F.pad(X, (0, 0, 0, 0, 0, self.missing))  # columns, rows, channels


def make_shortcut(num_channels, in_channels, strides, option, is_normalised=True):
    if option != "C" and num_channels == in_channels and strides == 1:
        return nn.Identity()
    if option == "A":
        return PadChannels(num_channels, in_channels, strides)
    conv = make_conv(num_channels, in_channels, 1, strides)
    return nn.Sequential(conv, nn.BatchNorm2d(num_channels)) if is_normalised else conv


class ResidualBase(nn.Module):
    expansion = 1

    def __init__(self, body, shortcut, residual=True):
        super().__init__()
        self.residual = residual
        self.body = body
        self.shortcut = shortcut if residual else None

    def forward(self, X):
        Y = self.body(X)
        if self.residual:
            Y = Y + self.shortcut(X)
        return F.relu(Y)


class BasicBlock(ResidualBase):
    def __init__(self, num_channels, in_channels, strides=1, shortcut="B", residual=True):
        body = nn.Sequential(
            make_conv(num_channels, in_channels, 3, strides),
            nn.BatchNorm2d(num_channels),
            nn.ReLU(),
            make_conv(num_channels, num_channels, 3),
            nn.BatchNorm2d(num_channels),
        )
        shortcut = make_shortcut(num_channels, in_channels, strides, shortcut)
        super().__init__(body, shortcut, residual)


def make_stem(num_channels, kind, in_channels=3):
    kernel_size, strides = (7, 2) if kind == "imagenet" else (3, 1)
    conv = make_conv(num_channels, in_channels, kernel_size, strides)
    layers = [conv, nn.BatchNorm2d(num_channels), nn.ReLU()]
    if kind == "imagenet":
        layers.append(nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
    return nn.Sequential(*layers)


def make_stage(block, num_channels, in_channels, num_residuals, strides, **options):
    rest = [block(num_channels, num_channels, **options) for _ in range(num_residuals - 1)]
    return nn.Sequential(block(num_channels, in_channels, strides, **options), *rest)


def cifar_resnet(depth, num_classes=10, shortcut="B", residual=True, preact=False):
    block, n = PreActResidual if preact else BasicBlock, (depth - 2) // 6
    options = {"shortcut": shortcut, "residual": residual}
    first = make_stem(16, "cifar")
    return nn.Sequential(
        first[:1] if preact else first,
        make_stage(block, 16, 16, n, strides=1, **options),
        make_stage(block, 32, 16, n, strides=2, **options),
        make_stage(block, 64, 32, n, strides=2, **options),
        *([nn.BatchNorm2d(64), nn.ReLU()] if preact else []),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, num_classes),
    )


def top_k_accuracy(scores, y, k):
    best = scores.topk(k, dim=1).indices
    return (best == y[:, None]).any(dim=1).float().mean().item()


class Bottleneck(ResidualBase):
    expansion = 4

    def __init__(self, num_channels, in_channels, strides=1, shortcut="B", residual=True):
        width = num_channels // 4
        body = nn.Sequential(
            make_conv(width, in_channels, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            make_conv(width, width, 3, strides),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            make_conv(num_channels, width, 1),
            nn.BatchNorm2d(num_channels),
        )
        shortcut = make_shortcut(num_channels, in_channels, strides, shortcut)
        super().__init__(body, shortcut, residual)


class PreActResidual(ResidualBase):
    def __init__(self, num_channels, in_channels, strides=1, shortcut="B", residual=True):
        body = nn.Sequential(
            make_conv(num_channels, in_channels, 3, strides),
            nn.BatchNorm2d(num_channels),
            nn.ReLU(),
            make_conv(num_channels, num_channels, 3),
        )
        shortcut = make_shortcut(num_channels, in_channels, strides, shortcut, is_normalised=False)
        super().__init__(body, shortcut, residual)
        self.bn = nn.BatchNorm2d(in_channels)

    def forward(self, X):
        activated = F.relu(self.bn(X))
        Y = self.body(activated)
        if self.residual:
            Y = Y + self.shortcut(activated if isinstance(self.shortcut, nn.Conv2d) else X)
        return Y


def grad_cam(net, X, y):
    body, head = net[:-3], net[-3:]  # pooling, flattening and the dense layer are the head
    net.eval()
    maps = body(X).detach().requires_grad_()
    score = head(maps).gather(1, y[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, maps)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return F.relu((weights * maps).sum(dim=1)).detach()
