"""Run by `make test-gpu` where mxnet-cu112 is installed, with a driver that finds no GPU."""

import mxnet as mx

from d2lres import try_gpu

features = mx.runtime.Features()
assert features.is_enabled("CUDA") and features.is_enabled("CUDNN")
assert mx.context.num_gpus() == 0
assert try_gpu() == mx.cpu()
print("mxnet-cu112 loads with CUDA and cuDNN, and try_gpu() falls back to", try_gpu())
