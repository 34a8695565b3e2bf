import pytest
import torch
from PIL import Image

from stylegan import images


def test_uint8_survives_the_way_to_float_and_back():
    levels = torch.arange(256, dtype=torch.uint8)
    there = images.from_uint8(levels)
    assert there.dtype == torch.float32
    assert (there[0], there[255]) == (-1, 1)
    assert torch.equal(images.to_uint8(there), levels)


def test_rounding_and_clamping_are_the_official_ones():
    # floor(clamp(127.5 x + 128, 0, 255)): spec, section 1.1
    x = torch.tensor([-2.0, -1.0, -0.9999, 0.0, 0.0039, 0.004, 0.99, 1.0, 1.5])
    assert images.to_uint8(x).tolist() == [0, 0, 0, 128, 128, 128, 254, 255, 255]


def test_only_uint8_is_taken_for_pixels():
    with pytest.raises(ValueError, match=r"takes uint8, got torch\.float32"):
        images.from_uint8(torch.zeros(1))


def test_grid_goes_row_by_row_and_fills_what_is_left():
    cells = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 2, 2)
    sheet = images.grid(cells, columns=3, padding=1, fill=9)
    assert sheet.shape == (3, 5, 8)
    assert sheet[0, 0].tolist() == [0, 0, 9, 1, 1, 9, 2, 2]
    assert sheet[0, 4].tolist() == [3, 3, 9, 4, 4, 9, 9, 9]
    assert sheet[0, 2].tolist() == [9] * 8


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_files_hold_the_pixels(tmp_path, channels):
    image = torch.randint(0, 256, [channels, 5, 7], dtype=torch.uint8)
    images.write(image, tmp_path / "deep" / "image.png")
    with Image.open(tmp_path / "deep" / "image.png") as file:
        assert file.format == "PNG"
        assert torch.equal(images.from_pil(file), image)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["image.png"]


def test_gif_holds_every_frame_and_loops(tmp_path):
    frames = [torch.full([3, 4, 4], level, dtype=torch.uint8) for level in (0, 100, 200)]
    images.write_gif(frames, tmp_path / "loop.gif", fps=20)
    with Image.open(tmp_path / "loop.gif") as file:
        assert file.n_frames == 3
        assert file.info["loop"] == 0
        assert file.info["duration"] == 50


def test_images_of_networks_and_files_become_pil_images():
    floats = torch.stack([torch.full([3, 2, 4], value) for value in (-1.0, 0.0, 1.0)])
    pictures = images.to_pil(floats.requires_grad_())
    assert [picture.getpixel((0, 0)) for picture in pictures] == [(0,) * 3, (128,) * 3, (255,) * 3]
    assert pictures[0].size == (4, 2)
    pixels = torch.arange(8, dtype=torch.uint8).reshape(1, 2, 4)
    gray = images.to_pil(pixels)
    assert gray.mode == "L"
    assert torch.equal(images.from_pil(gray), pixels)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(4, 4), r"got \[4, 4\]"),
        (torch.zeros(2, 5, 4, 4), "with 1, 3 or 4 channels"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "float or uint8, got torch.int64"),
    ],
)
def test_other_tensors_are_no_images(tensor, message):
    with pytest.raises(ValueError, match=message):
        images.to_pil(tensor)


def test_a_grid_file_is_told_from_a_single_image(tmp_path):
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    images.write(image, tmp_path / "image.png")
    images.write_grid(image, tmp_path / "grid.png")
    for name, expected in (("image.png", False), ("grid.png", True)):
        with Image.open(tmp_path / name) as file:
            assert images.is_grid(file) is expected
            assert torch.equal(images.from_pil(file), image)
