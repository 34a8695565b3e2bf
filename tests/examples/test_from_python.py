"""The example that uses the library without its command line."""

import runpy
from pathlib import Path

import pytest
import torch

from stylegan import images

EXAMPLE = Path(__file__).parents[2] / "examples" / "from_python.py"


@pytest.mark.usefixtures("small_detectors")
def test_from_pictures_to_projections_metrics_and_a_report(tmp_path, capsys):
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for index in range(70):
        height, width = 20 + index % 3, 24 - index % 5
        picture = torch.randint(0, 256, [3, height, width], dtype=torch.uint8)
        images.write(picture, pictures / f"{index:02d}.png")
    text = EXAMPLE.read_text()
    assert "cli" not in text
    assert "subprocess" not in text

    runpy.run_path(str(EXAMPLE))["main"](pictures, out, resolution=16)

    printed = capsys.readouterr().out
    assert "70 images, 16x16 RGB" in printed
    assert "0.2 kimg, complete" in printed
    assert "swd64" in printed
    assert (out / "run" / "snapshots" / "000000200" / "model.json").is_file()
    assert images.read(out / "samples.png").shape == (3, 64, 64)
    assert (out / "walk.gif").is_file()
    assert (out / "projections" / "00" / "projected_w.npz").is_file()
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2
    page = (out / "report.html").read_text()
    assert "<img" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
