import pytest
import torch

from stylegan.analysis.spectra import mean_spectrum


@pytest.mark.parametrize("side", [16, 64])
def test_white_noise_has_its_variance_at_every_frequency(side):
    images = 0.5 * torch.randn(400, 3, side, side, generator=torch.Generator().manual_seed(0))
    found = mean_spectrum(images.split(100))
    assert found.num_images == 400
    assert len(found.radial) == side // 2 + 1
    assert found.radial[2:] == pytest.approx([0.25] * (side // 2 - 1), rel=0.06)
    assert found.power.shape == (side, side)


@pytest.mark.parametrize(("along_x", "along_y"), [(5, 0), (0, 12), (9, 12)])
def test_a_wave_stands_at_its_frequency(along_x, along_y):
    axis = torch.arange(64) / 64
    wave = torch.cos(2 * torch.pi * (along_x * axis + along_y * axis[:, None]))
    found = mean_spectrum([wave.expand(2, 3, 64, 64)])
    peak = divmod(int(found.power.argmax()), 64)
    assert {peak, (64 - peak[0], 64 - peak[1])} == {
        (32 + along_y, 32 + along_x),
        (32 - along_y, 32 - along_x),
    }
    radius = round((along_x**2 + along_y**2) ** 0.5)
    assert max(range(33), key=found.radial.__getitem__) == radius


def test_a_constant_has_no_power_and_a_ramp_none_at_high_frequencies():
    flat = mean_spectrum([torch.full([1, 1, 32, 32], 0.8)])
    assert max(flat.radial) < 1e-20
    ramp = mean_spectrum([torch.linspace(-1, 1, 32).expand(1, 1, 32, 32)])
    assert ramp.radial[16] < 1e-6 * ramp.radial[1]  # without a window the border would be there


def test_images_of_several_sizes_and_no_image_are_refused():
    with pytest.raises(ValueError, match="32 and of 16"):
        mean_spectrum([torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 32, 32)])
    with pytest.raises(ValueError, match="at least one"):
        mean_spectrum([])


@pytest.mark.parametrize(("along_x", "along_y"), [(5, 0), (0, 3), (10, 3)])
def test_frequencies_of_rectangles_count_in_cycles_per_shorter_side(along_x, along_y):
    height, width = 24, 40
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    wave = torch.cos(2 * torch.pi * (along_x * x / width + along_y * y / height))
    spectrum = mean_spectrum([wave[None, None]])
    assert spectrum.power.shape == (height, width)
    frequency = round((along_y**2 + (along_x * height / width) ** 2) ** 0.5)
    assert max(range(len(spectrum.radial)), key=spectrum.radial.__getitem__) == frequency
    assert len(spectrum.radial) == height // 2 + 1
