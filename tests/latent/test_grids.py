from itertools import combinations, permutations

import pytest
import torch

from stylegan.latent.grids import (
    PADDING,
    blend_grid,
    mixing_grid,
    sample_grid,
    truncation_grid,
)
from stylegan.latent.layers import blend, parse_layers
from stylegan.latent.render import map_latents, render
from stylegan.latent.seeds import latents_from_seeds

STEP = 32 + PADDING


def cell(sheet, row, column, step=STEP):
    return sheet[:, row * step : row * step + 32, column * step : column * step + 32]


def picture(generator, ws):
    return next(render(generator, ws))


@pytest.fixture(scope="module")
def z():
    return latents_from_seeds(range(5), 16)


def test_a_grid_shows_each_latent_in_its_place(generator, z):
    sheet = sample_grid(generator, z, columns=3, psi=0.7)
    assert sheet.shape == (3, 64, 96)
    for index in range(5):
        expected = picture(generator, map_latents(generator, z[index : index + 1], psi=0.7))
        assert torch.equal(cell(sheet, index // 3, index % 3, 32), expected)
    assert (cell(sheet, 1, 2, 32) == 255).all()
    assert sample_grid(generator, z, columns=3, padding=2).shape == (3, 66, 100)


def test_a_truncation_grid_has_a_row_for_each_latent_and_a_column_for_each_psi(generator, z):
    sheet = truncation_grid(generator, map_latents(generator, z[:2]))
    assert sheet.shape == (3, 2 * STEP - PADDING, 6 * STEP - PADDING)
    for row in range(2):
        for column, psi in enumerate([1, 0.7, 0.5, 0, -0.5, -1]):
            expected = picture(generator, map_latents(generator, z[row : row + 1], psi=psi))
            assert torch.equal(cell(sheet, row, column), expected)


def test_full_truncation_shows_the_mean_image_in_every_row(generator, z):
    sheet = truncation_grid(generator, map_latents(generator, z[:3]), psis=[0, 1])
    mean = picture(generator, generator.mapping.w_avg.expand(1, 8, 16))
    for row in range(3):
        assert torch.equal(cell(sheet, row, 0), mean)
        assert not torch.equal(cell(sheet, row, 1), mean)


@pytest.mark.parametrize("layers", ["coarse", "middle", "0,2-3"])
def test_a_mixing_grid_meets_its_sources_and_destinations(generator, z, layers):
    indices = parse_layers(layers, 8)
    ws = map_latents(generator, z, psi=0.8)
    sheet = mixing_grid(generator, ws[:2], sources=ws[2:5], layers=indices)
    assert sheet.shape == (3, 3 * STEP - PADDING, 4 * STEP - PADDING)
    assert (cell(sheet, 0, 0) == 255).all()
    for column in range(3):
        assert torch.equal(cell(sheet, 0, column + 1), picture(generator, ws[2 + column][None]))
    for row in range(2):
        assert torch.equal(cell(sheet, row + 1, 0), picture(generator, ws[row][None]))
        for column in range(3):
            mixed = ws[row].clone()
            mixed[indices] = ws[2 + column][indices]
            assert torch.equal(cell(sheet, row + 1, column + 1), picture(generator, mixed[None]))


def test_all_layers_give_the_source_and_none_the_destination(generator, z):
    ws = map_latents(generator, z)
    full = mixing_grid(generator, ws[:2], sources=ws[2:4], layers=range(8))
    empty = mixing_grid(generator, ws[:2], sources=ws[2:4], layers=[])
    for row in (1, 2):
        for column in (1, 2):
            assert torch.equal(cell(full, row, column), cell(full, 0, column))
            assert torch.equal(cell(empty, row, column), cell(empty, row, 0))


def test_truncation_up_to_a_cutoff_leaves_the_fine_styles(generator, z):
    sheet = truncation_grid(generator, map_latents(generator, z[:1]), psis=[0.5], cutoff=3)
    expected = picture(generator, map_latents(generator, z[:1], psi=0.5, cutoff=3))
    assert torch.equal(sheet, expected)


def test_a_blend_of_one_latent_shows_the_latents_themselves(generator, z):
    ws = map_latents(generator, z)
    stills = {picture(generator, each[None]).numpy().tobytes() for each in ws}
    sheet = blend_grid(generator, ws, num_latents=1, num_images=6, columns=3)
    shown = [cell(sheet, index // 3, index % 3).numpy().tobytes() for index in range(6)]
    assert set(shown) <= stills


@pytest.mark.parametrize("crossovers", [[3, 6], None])
def test_a_blend_has_the_styles_of_each_latent_in_turn(generator, z, crossovers):
    ws = map_latents(generator, z[:3])
    options = {"num_latents": 3, "num_images": 1, "columns": 1, "crossovers": crossovers}
    sheet = blend_grid(generator, ws, **options)
    places = [crossovers] if crossovers else list(combinations(range(1, 8), 2))
    candidates = [
        picture(generator, blend(ws[list(order)], place)[None])
        for order in permutations(range(3))
        for place in places
    ]
    assert sum(torch.equal(sheet, candidate) for candidate in candidates) == 1
    other = blend_grid(generator, ws, **options, seed=1)
    assert not torch.equal(sheet, other)
