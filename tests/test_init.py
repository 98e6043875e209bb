"""The public names: each is there, those of releases before as well, and an editor knows them."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import jedi
import pytest

import d2lres

STUB = ast.parse(Path(d2lres.__file__).with_suffix(".pyi").read_text())
IMPORTS = [node for node in STUB.body if isinstance(node, ast.ImportFrom)]

RELEASE_0_1 = """
ArrayIter BasicBlock Bottleneck CIFAR100_COARSE_LABELS CIFAR100_COARSE_OF_FINE CIFAR100_LABELS
CIFAR100_MEAN CIFAR100_STD CIFAR10_LABELS CIFAR10_MEAN CIFAR10_STD ColorJitter Compose Cutout
FASHION_MNIST_LABELS History MixUp PreActResidual RandomCrop RandomFlip RandomResizedCrop
RandomRotation Residual Scale cifar_resnet compile confusion_matrix doctor draw_block
draw_function_classes draw_identity_layers draw_network evaluate_accuracy export features fine_tune
freeze grad_cam layer_lr layer_stats load_data_cifar10 load_data_cifar100 load_data_fashion_mnist
load_image_folder load_keras_weights load_torch_weights narrow_resnet18 plot_confusion_matrix
plot_history plot_runs predict replace_head resnet101 resnet152 resnet18 resnet34 resnet50
resnet_block save_torch_weights scale show_images stem summary text_labels top_k_accuracy train
try_gpu unfreeze
""".split()


def test_a_name_of_the_stub_is_what_its_module_has():
    for module, alias in ((node.module, alias) for node in IMPORTS for alias in node.names):
        assert alias.asname == alias.name  # an editor takes others for private
        value = getattr(d2lres, alias.name)
        found = importlib.import_module(f"d2lres.{module or alias.name}")
        if module:
            assert alias.name in found.__all__
            found = getattr(found, alias.name)
        assert value is found


def test_the_stub_is_all_there_is():
    names = {alias.name for node in IMPORTS for alias in node.names}
    assert names == set(d2lres.__all__) == set(dir(d2lres))
    assert {"__version__"} == {n.target.id for n in STUB.body if isinstance(n, ast.AnnAssign)}
    with pytest.raises(AttributeError, match="resnet19"):
        d2lres.resnet19  # noqa: B018


def test_a_name_that_there_is_not_is_missed_at_once(monkeypatch):
    """Tools ask every module for names of their own: no search for what stood in the way."""
    monkeypatch.setattr(d2lres.namesakes, "explain", pytest.fail)
    assert not hasattr(d2lres, "__wrapped__")


def test_names_of_the_release_before_are_kept():
    assert set(RELEASE_0_1) <= set(d2lres.__all__)


@pytest.mark.slow
def test_an_editor_completes_and_knows_a_public_name():
    code = "import d2lres\nd2lres."
    found = {completion.name for completion in jedi.Script(code).complete(2, 7)}
    assert found >= set(d2lres.__all__)
    (signature,) = jedi.Script(f"{code}cifar_resnet(").get_signatures(2, 20)
    assert [param.name for param in signature.params][:2] == ["depth", "num_classes"]


def test_right_after_the_import_and_with_data_alone(tmp_path):
    code = """
import sys, d2lres
assert not {"mxnet", "numpy", "matplotlib"} & sys.modules.keys()  # it is quick
import d2lres.data.augment, d2lres.data.cifar, d2lres.data.folder
assert d2lres.load_data_fashion_mnist(8) and "mxnet" not in sys.modules
assert d2lres.models.resnet18 is d2lres.resnet18
assert callable(d2lres.train) and callable(d2lres.compile)"""
    environment = {"D2LRES_OFFLINE": "1", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
