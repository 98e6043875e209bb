import pytest

from d2lres.course.sizes import scale


def test_data_of_no_scale():
    with pytest.raises(ValueError, match="for 'cifar10': data is one of fashion_mnist, cifar"):
        scale(data="cifar10")
