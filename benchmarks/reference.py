"""A plain implementation of the StyleGAN2 networks, as the reference for speed.

It uses grouped convolutions with one set of weights per sample, resampling by zero insertion,
padding and convolution, separate operations for bias, activation and gain, float32, NCHW, and
standard autograd. It uses the parameters of our networks, so both compute the same function.
"""

import math
from functools import partial

import torch.nn.functional as F

from stylegan.models.stylegan2 import Discriminator, Generator
from stylegan.ops.normalize import minibatch_stddev
from stylegan.rng import randn_rows


def make_plain(generator: Generator, discriminator: Discriminator) -> None:
    """Replace the forward passes of both networks (skip G, resnet D) by plain ones."""
    assert generator.config.architecture == "skip"
    assert discriminator.config.architecture == "resnet"
    generator.synthesis.images = partial(synthesis, generator.synthesis)
    discriminator.forward = partial(discriminate, discriminator)


def upfirdn(x, kernel, *, up=1, down=1, padding, gain=1.0):
    num, channels, height, width = x.shape
    x = x.reshape(num, channels, height, 1, width, 1)
    x = F.pad(x, (0, up - 1, 0, 0, 0, up - 1)).reshape(num, channels, height * up, width * up)
    x = F.pad(x, padding)
    weight = (kernel.flip(0, 1) * gain)[None, None].repeat(channels, 1, 1, 1)
    return F.conv2d(x, weight, groups=channels)[:, :, ::down, ::down]


def bias_act(x, bias):
    return F.leaky_relu(x + bias[None, :, None, None], 0.2) * math.sqrt(2)


def modulated_conv(x, weight, styles, *, kernel=None, demodulate=True):
    num, in_channels = styles.shape
    weights = weight[None] * styles[:, None, :, None, None]  # [N, O, I, k, k]
    if demodulate:
        weights = weights * (weights.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    x = x.reshape(1, num * in_channels, *x.shape[2:])
    if kernel is None:
        x = F.conv2d(x, weights.flatten(0, 1), padding=weight.shape[-1] // 2, groups=num)
    else:
        weights = weights.transpose(1, 2).flatten(0, 1)
        x = F.conv_transpose2d(x, weights, stride=2, groups=num)
        x = upfirdn(x, kernel, padding=(1, 1, 1, 1), gain=4)
    return x.reshape(num, -1, *x.shape[2:])


def synthesis_layer(layer, x, w, noise_mode, generator):
    kernel = layer.kernel if layer.up else None
    x = modulated_conv(x, layer.weight, layer.affine(w), kernel=kernel)
    if noise_mode == "random":
        shape = [x.shape[0], 1, *x.shape[2:]]
        x = x + randn_rows(shape, generator, x.device) * layer.noise_strength
    elif noise_mode == "const":
        x = x + layer.noise_const * layer.noise_strength
    return bias_act(x, layer.bias)


def synthesis(network, ws, noise_mode="const", generator=None):
    image, index = None, 0
    for resolution in network.resolutions:
        block = network.get_submodule(f"b{resolution}")
        if block.is_first:
            x = block.const[None].repeat(ws.shape[0], 1, 1, 1)
            layers = [block.conv1]
        else:
            layers = [block.conv0, block.conv1]
        for layer in layers:
            x = synthesis_layer(layer, x, ws[:, index], noise_mode, generator)
            index += 1
        styles = block.torgb.affine(ws[:, index]) * block.torgb.scale
        rgb = modulated_conv(x, block.torgb.weight, styles, demodulate=False)
        rgb = rgb + block.torgb.bias[None, :, None, None]
        if image is not None:
            image = upfirdn(image, block.kernel, up=2, padding=(2, 1, 2, 1), gain=4)
        image = rgb if image is None else image + rgb
    return [image]


def scaled(weight):
    return weight / math.sqrt(weight[0].numel())  # equalized learning rate: scaled by the fan-in


def conv(layer, x):
    x = F.conv2d(x, scaled(layer.weight), padding=layer.padding)
    return bias_act(x, layer.bias)


def discriminate(network, images, c=None):
    x = conv(network.get_submodule(f"b{network.resolutions[0]}").fromrgb, images)
    for resolution in network.resolutions:
        block = network.get_submodule(f"b{resolution}")
        skip = upfirdn(x, network.kernel, down=2, padding=(1, 1, 1, 1))
        skip = F.conv2d(skip, scaled(block.skip.weight))
        x = conv(block.conv0, x)
        x = upfirdn(x, network.kernel, padding=(2, 2, 2, 2))
        x = F.conv2d(x, scaled(block.conv1.weight), stride=2)
        x = (bias_act(x, block.conv1.bias) + skip) / math.sqrt(2)
    x = conv(network.b4.conv, minibatch_stddev(x, group_size=network.b4.mbstd_group_size))
    return network.b4.out(network.b4.fc(x.flatten(1)))
