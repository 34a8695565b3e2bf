import pytest
from PIL import Image

import stylegan


@pytest.fixture
def photos(tmp_path):
    path = tmp_path / "photos"
    path.mkdir()
    for index in range(4):
        Image.effect_noise((16, 16), 50).convert("RGB").save(path / f"{index}.png")
    (path / "<notes>.txt").write_text("hello")
    return path


def test_a_set_is_made_checked_and_described_without_a_command_line(photos, tmp_path):
    calls = []
    prepared = stylegan.prepare(
        photos, tmp_path / "set.zip", resolution=8, progress=lambda *call: calls.append(call)
    )
    assert calls[-1] == ("images", 4, 4)
    assert (prepared.num_images, len(prepared.skipped)) == (4, 1)
    assert stylegan.check(photos).bad[0][0] == "<notes>.txt"
    assert stylegan.check(tmp_path / "set.zip").is_good
    info = stylegan.info(tmp_path / "set.zip", out=tmp_path / "sheet.png")
    assert (info.sizes, info.modes) == ({(8, 8): 4}, {"RGB": 4})
    assert info.history["from"] == "photos"
    sharded = stylegan.shard(tmp_path / "set.zip", tmp_path / "shards")
    assert str(sharded).endswith("shards: 4 images, 8x8, in 1 shards")


def test_results_are_reports_in_a_notebook(photos, tmp_path):
    report = stylegan.check(photos)
    html = report._repr_html_()
    assert html.startswith("<pre>")
    assert "&lt;notes&gt;.txt: not an image" in html
    assert "4 images can be trained on at 16x16." in html
    info = stylegan.info(photos, out=tmp_path / "sheet.png")
    assert '<img src="data:image/png;base64,' in info._repr_html_()
