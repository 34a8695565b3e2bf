"""Sessions of tiny networks."""

import functools

import pytest

import stylegan
from stylegan.explorer.gallery import Gallery
from stylegan.explorer.session import Session
from stylegan.models import progan, stylegan2
from stylegan.models import stylegan as stylegan1
from stylegan.pixel_format import PixelFormat


@pytest.fixture(scope="session")
def tiny_generator(generator_config):
    """Return a function that makes the tiny generator of a family, or the "conditional" one."""

    @functools.cache
    def make(name):
        sizes = {"resolution": 16, "z_dim": 8, "channel_base": 64, "channel_max": 6}
        if name == "progan":
            generator = progan.Generator(progan.GeneratorConfig(**sizes))
        elif name == "stylegan":
            config = stylegan1.GeneratorConfig(**sizes, w_dim=12, mapping_layers=2)
            generator = stylegan1.Generator(config)
        else:
            options = {"conditional": {"c_dim": 3}, "alpha": {"img_channels": 4}}
            config = stylegan2.GeneratorConfig(
                **sizes, **options.get(name, {}), w_dim=12, mapping_layers=2
            )
            generator = stylegan2.Generator(config)
            if name == "alpha":
                generator.pixels = PixelFormat(num_channels=4, has_alpha=True)
        for parameter_name, parameter in generator.named_parameters():
            if parameter_name.endswith("noise_strength"):  # zero at first, so noise has no effect
                parameter.data.fill_(0.5)
        return generator.eval().requires_grad_(False)

    return make


@pytest.fixture
def make_session(tiny_generator, tmp_path):
    """Return a function that makes a session of a family with an empty gallery."""

    def make(name="stylegan2", folder="gallery"):
        return Session(tiny_generator(name), Gallery(tmp_path / folder), name=name)

    return make


@pytest.fixture
def session(make_session):
    return make_session()


@pytest.fixture(scope="session")
def tiny_network(tmp_path_factory):
    """The folder of a network of 32x32."""
    folder = tmp_path_factory.mktemp("networks") / "tiny"
    stylegan.save(stylegan.create("stylegan2-small", 32, channel_max=16), folder)
    return folder
