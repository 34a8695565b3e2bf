from functools import partial

import pytest
import torch
from torch import nn

from stylegan.errors import ConfigError
from stylegan.nn.compiled import check_compiler, compile_blocks, uncompiled

# of torch itself, while it compiles
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class Block(nn.Linear):
    def forward(self, x):
        return nn.functional.softplus(super().forward(x))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.b4 = Block(3, 3)
        self.out = nn.Linear(3, 1)

    def forward(self, x):
        return self.out(self.b4(x))


# aot_eager traces as inductor does and runs what it traced, without a wait for a C++ compiler
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_blocks_are_compiled_and_second_derivatives_leave_them_out(monkeypatch, backend):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    try:
        check_compiler(torch.device("cpu"))
    except ConfigError as error:
        pytest.skip(str(error))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    network, x = Network(), torch.randn(5, 3, requires_grad=True)
    expected = torch.autograd.grad(network(x).sum(), x)
    names = list(network.state_dict())
    compile_blocks(network)
    assert list(network.state_dict()) == names
    torch.testing.assert_close(torch.autograd.grad(network(x).sum(), x), expected)
    assert torch._dynamo.utils.counters["frames"]["ok"] == 1  # the block alone

    def twice():
        (grad,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), x)

    with pytest.raises(RuntimeError, match=r"create_graph|double backward"):
        twice()
    with uncompiled(True):
        assert torch.isfinite(twice()[0]).all()
    with uncompiled(False), pytest.raises(RuntimeError, match=r"create_graph|double backward"):
        twice()
    torch._dynamo.reset()
