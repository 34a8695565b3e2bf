"""Tiny runs on images of other channels and depths, from files to networks to files.

The cases cover each pair of a number of channels and a kind of file, or of a depth, once.
"""

import functools
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import stylegan
from stylegan.data.dataset import ImageDataset
from stylegan.images import read
from stylegan.metrics import records
from stylegan.pixel_format import PixelFormat
from stylegan.training.loop import train as train_run

CASES = {
    "rgba": PixelFormat(num_channels=4, has_alpha=True),
    "deep-grey": PixelFormat(num_channels=1, depth="uint16"),
    "two-floats": PixelFormat(num_channels=2, depth="float32", range=(-1.0, 3.0)),
    "seven": PixelFormat(num_channels=7, depth="uint16"),
    "bands": PixelFormat(num_channels=4, depth="float32"),
}


def options_of(pixels):
    low, high = pixels.range
    return {
        "alpha": "auto" if pixels.has_alpha else "none",
        "range": f"{low:g},{high:g}" if pixels.depth == "float32" else None,
    }


@pytest.fixture(scope="session")
def pixel_sets(tmp_path_factory):
    """Return a function that gives a folder of twelve images of a format, 16x16."""

    @functools.cache
    def folder_of(name):
        pixels, folder = CASES[name], tmp_path_factory.mktemp(name)
        stream = torch.Generator().manual_seed(1)
        for index in range(12):
            shape = [pixels.num_channels, 16, 16]
            x = torch.rand(shape, generator=stream) * 2 - 1
            if pixels.has_alpha:  # transparent, soft and opaque parts
                x[3] = torch.linspace(-1.5, 1.5, 16).clamp(-1, 1)
                x[:3] = (x[:3] + 1) * (x[3:] + 1) / 2 - 1
            content = pixels.file_bytes(pixels.to_stored(x))
            (folder / f"{index:02d}{pixels.suffix}").write_bytes(content)
        return folder

    return folder_of


@pytest.fixture(scope="session")
def pixel_config(run_config, pixel_sets):
    """Return a function that gives the options of the tiny run on the images of a case."""

    def configure(name):
        channels = CASES[name].num_channels
        return replace(
            run_config,
            generator=replace(run_config.generator, img_channels=channels),
            discriminator=replace(run_config.discriminator, img_channels=channels),
            data=replace(run_config.data, path=str(pixel_sets(name)), **options_of(CASES[name])),
            augment=replace(run_config.augment, mode="fixed", p=0.7, set="color"),
            output=replace(run_config.output, total_kimg=0.032, snapshot_kimg=0.032),
        )

    return configure


@pytest.fixture(scope="session")
def pixel_runs(pixel_config, tmp_path_factory):
    """Return a function that gives the finished run of a case."""

    @functools.cache
    def finished(name):
        folder = tmp_path_factory.mktemp(name) / "run"
        assert train_run(pixel_config(name), folder).is_complete
        return folder

    return finished


QUICK = ("rgba", "seven")  # the others of the longer tests are marked as slow


@pytest.fixture(
    params=[pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in CASES]
)
def case(request):
    return request.param


@pytest.mark.parametrize("case", CASES)
def test_a_set_is_prepared_and_read_without_loss(case, pixel_sets, tmp_path):
    pixels, folder = CASES[case], pixel_sets(case)
    prepared = stylegan.prepare(
        folder, tmp_path / "set.zip", resolution=16, workers=1, **options_of(pixels)
    )
    assert (prepared.mode, prepared.skipped) == (str(pixels), ())
    dataset = ImageDataset(tmp_path / "set.zip")
    assert dataset.pixels == pixels
    expected = pixels.read(folder / f"03{pixels.suffix}")
    assert torch.equal(dataset[3], expected)
    assert dataset.preload(1 << 20)
    assert torch.equal(dataset.gather([3])[0], expected)
    info = stylegan.info(tmp_path / "set.zip", out=tmp_path / "sheet.png")
    assert f"pixels       {pixels}" in str(info)
    assert stylegan.check(tmp_path / "set.zip").is_good
    half = tmp_path / "half.zip"
    smaller = stylegan.prepare(folder, half, resolution=8, **options_of(pixels))
    assert (smaller.num_images, ImageDataset(half)[0].dtype) == (12, pixels.dtype)


def test_a_resumed_run_has_the_same_bits(case, pixel_config, pixel_runs, tmp_path):
    config = pixel_config(case)
    half = replace(config, output=replace(config.output, total_kimg=0.016))
    train_run(half, tmp_path / "run")
    train_run(config, tmp_path / "run")
    whole, resumed = (
        load_file(run / "snapshots" / "000000032" / "model.safetensors")
        for run in (pixel_runs(case), tmp_path / "run")
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_images_are_generated_with_the_depth_of_the_set(case, pixel_runs, tmp_path):
    pixels, run = CASES[case], pixel_runs(case)
    assert (run / "reals.png").exists()
    assert list((run / "samples").glob("*.png"))
    generator = stylegan.load(run)
    assert generator.pixels == pixels
    made = stylegan.generate.images(run, "0-1", out=tmp_path / "a", grid=True, device="cpu")
    assert {path.suffix for path in made.paths} == {pixels.suffix}
    assert (made[1].dtype, made[1].shape[0]) == (pixels.dtype, pixels.num_channels)
    assert read(tmp_path / "a" / "grid.png").shape[0] in (1, 3)
    flat = stylegan.generate.images(run, "0", depth="uint8", device="cpu")
    assert flat[0].dtype == torch.uint8
    stylegan.convert(run, tmp_path / "copy")
    again = stylegan.generate.images(tmp_path / "copy", "0-1", device="cpu")
    assert torch.equal(again[1], made[1])
    stylegan.generate.video(run, tmp_path / "v.gif", seeds="0,1", seconds=0.2, device="cpu")
    mixed = stylegan.generate.mix(run, "0", "1", out=tmp_path / "mix.png", device="cpu")
    assert mixed.pixels.shape[0] in (1, 3)


def test_networks_are_measured_and_analyzed_by_a_stated_rule(
    case, pixel_config, pixel_runs, small_detectors, tmp_path
):
    pixels, run, data = CASES[case], pixel_runs(case), pixel_config(case).data.path
    metrics = "swd8,kid8:efficientnet-lite0,ppl2_8_wend:efficientnet-lite0"
    out = tmp_path / "m.jsonl"
    found = stylegan.evaluate(run, data, metrics=metrics, out=out, device="cpu")
    assert len(found.records) == 3
    for record in records.read(out):
        assert record["fake"].get("view") == pixels.view
    stylegan.analyze.spectra(run, num=4, data=data, out=tmp_path, device="cpu")
    stylegan.analyze.noise(run, num=1, out=tmp_path, device="cpu")
    stylegan.analyze.phase(run, num=1, out=tmp_path, device="cpu")


def test_images_are_projected(case, pixel_sets, pixel_runs, tmp_path):
    pixels, folder = CASES[case], pixel_sets(case)
    run, target = pixel_runs(case), folder / f"00{pixels.suffix}"
    (projected,) = stylegan.project(
        target, run, out=tmp_path, steps=2, perceptual="discriminator", device="cpu"
    ).images
    assert projected.target.dtype == torch.uint8
    assert read(tmp_path / "00" / "strip.png").shape[0] in (1, 3)
    assert projected.psnr > 0


@pytest.mark.slow
def test_a_report_is_written(pixel_runs, pixel_config, tmp_path):
    run, data = pixel_runs("rgba"), pixel_config("rgba").data.path
    stylegan.report(run, out=tmp_path / "r.html", data=data, num=8, projections=0, device="cpu")
    assert "RGBA" in (tmp_path / "r.html").read_text()
