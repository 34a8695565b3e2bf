"""Networks compute in real float32, whatever PyTorch is set to."""

import threading

import pytest
import torch

import processes
from stylegan.models.registry import create
from stylegan.ops.precision import exact_float32, float32_precision, is_tf32, switch_off_tf32

SMALL = {"channel_base": 64, "channel_max": 6}


@pytest.fixture(autouse=True)
def pytorchs_default():
    """What PyTorch is set to at first: convolutions round, matrix products do not."""
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def settings():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


class Observer:
    """A module's method that notes the settings while it runs."""

    def __init__(self):
        self.seen = []

    @exact_float32
    def compute(self, fail=False):
        self.seen.append(settings())
        if fail:
            raise KeyError


@pytest.mark.parametrize("name", ["progan", "stylegan-f", "stylegan2-f", "msg-stylegan2"])
def test_no_layer_of_a_network_rounds(name):
    networks = create(name, 8, **SMALL)
    seen = []
    for network in (networks.generator, networks.discriminator):
        for layer in network.modules():
            if not list(layer.children()) and list(layer.parameters()):
                layer.register_forward_hook(lambda layer, x, y: seen.append(settings()))
    generator = networks.generator
    ws = generator.mapping(torch.randn(4, generator.z_dim))
    networks.discriminator(generator.synthesis(ws))
    networks.discriminator.logits_and_labels(generator.discriminator_input(ws))
    assert set(seen) == {(False, False)}
    assert settings() == (True, False)


def test_an_open_context_decides_for_the_networks():
    observer = Observer()
    with float32_precision(tf32=True):
        assert is_tf32()
        observer.compute()
    assert observer.seen == [(True, True)]
    with float32_precision(tf32=False):
        assert not is_tf32()
        observer.compute()
    assert observer.seen[1:] == [(False, False)]
    assert settings() == (True, False)


def test_settings_come_back_after_an_error():
    with pytest.raises(KeyError):
        Observer().compute(fail=True)
    assert settings() == (True, False)
    with pytest.raises(KeyError), float32_precision(tf32=False):
        raise KeyError
    assert settings() == (True, False)


def test_a_method_of_one_thread_does_not_change_those_of_another():
    is_inside, may_leave = threading.Event(), threading.Event()

    class Slow(Observer):
        @exact_float32
        def compute(self):
            is_inside.set()
            may_leave.wait(10)
            self.seen.append(settings())

    slow, quick = Slow(), Observer()
    thread = threading.Thread(target=slow.compute)
    thread.start()
    assert is_inside.wait(10)
    quick.compute()  # begins and ends within the other
    may_leave.set()
    thread.join()
    assert slow.seen == quick.seen == [(False, False)]
    assert settings() == (True, False)


def use_newer_names():
    """Use the newer names, after which the older ones cannot be read in the process."""
    torch.backends.fp32_precision = "tf32"
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = conv.fp32_precision, matmul.fp32_precision
    assert before == ("tf32", "tf32")

    @exact_float32
    def compute(self):
        assert (conv.fp32_precision, matmul.fp32_precision) == ("ieee", "ieee")

    compute(None)
    with float32_precision(tf32=True):
        assert is_tf32()
    assert (conv.fp32_precision, matmul.fp32_precision) == before
    switch_off_tf32()
    assert (conv.fp32_precision, matmul.fp32_precision) == ("ieee", "ieee")


def test_settings_by_pytorchs_newer_names_are_respected(tmp_path):
    processes.run(use_newer_names, folder=tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["stylegan-f", "stylegan2-f"])
def test_a_gpu_agrees_with_the_cpu_by_default(name):
    networks = create(name, 64, channel_base=2048, channel_max=64)
    z = torch.randn(4, networks.generator.z_dim)
    with torch.no_grad():
        expected = networks.generator(z)
        found = networks.generator.cuda()(z.cuda())
    error = (found.cpu() - expected).abs().max() / expected.abs().max()
    assert error < 1e-4
