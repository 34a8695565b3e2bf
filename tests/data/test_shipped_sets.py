"""The sets of the repository are those that their READMEs describe."""

import hashlib
import re
from pathlib import Path

import pytest

from stylegan.data.dataset import ImageDataset

ROOT = Path(__file__).parents[2]
SETS = ["demo/emoji64.zip", "src/stylegan/bundled/portraits64.zip"]


@pytest.mark.parametrize("name", SETS)
def test_the_readme_beside_a_set_has_its_checksum_and_fingerprint(name):
    path = ROOT / name
    text = (path.parent / "README.md").read_text(encoding="utf-8")
    section = text.partition(f"# {path.name}\n")[2]
    (sha256,) = re.findall(rf"^\| SHA-256 of `{path.name}` \| `(\w+)` \|$", section, re.MULTILINE)
    (fingerprint,) = re.findall(r"^\| fingerprint .* \| `(\w+)` \|$", section, re.MULTILINE)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    dataset = ImageDataset(path)
    assert dataset.fingerprint == fingerprint
    assert f"{len(dataset):,} " in section.splitlines()[1]


def test_the_bundled_set_is_small_and_comes_with_its_license():
    folder = ROOT / "src" / "stylegan" / "bundled"
    assert (folder / "portraits64.zip").stat().st_size < 1.2e6
    license_text = (folder / "LICENSE.portraits").read_text(encoding="utf-8")
    assert "Google" in license_text.partition("Apache License")[0]
    assert license_text.endswith((ROOT / "LICENSE").read_text(encoding="utf-8"))
