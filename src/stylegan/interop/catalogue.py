"""Networks by name: those that come with the package, and URLs of the official ones."""

import itertools
from pathlib import Path

from stylegan import download

BUNDLED = Path(__file__).parents[1] / "bundled"
"""Folder with the networks that come with the package, native folders by their names."""
_CDN = "https://nvlabs-fi-cdn.nvidia.com/stylegan2/networks"
_DRIVE = "https://drive.usercontent.google.com/download?confirm=t&id="


def _known() -> dict[str, str]:
    """Return the URLs of the official files by their names without suffix."""
    names = [f"stylegan2-{d}-config-{x}" for d in ("ffhq", "car") for x in "abcdef"]
    names += [f"stylegan2-{d}-config-{x}" for d in ("cat", "church", "horse") for x in "af"]
    architectures = ("orig", "skip", "resnet")
    table2 = [
        f"stylegan2-{dataset}-config-e-G{g}-D{d}"
        for dataset, g, d in itertools.product(("ffhq", "car"), architectures, architectures)
    ]
    drive = {
        "stylegan-ffhq": "1MEGjdvVpUsu1jB4zrXZN7Y4kBBOzizDQ",
        "stylegan-celebahq": "1MGqJl28pN4t7SAtSrPdSRJSQJqahkzUf",
        "stylegan-bedrooms": "1MOSKeGF0FJcivpBI7s63V9YHloUTORiF",
        "stylegan-cars": "1MJ6iCfNtMIRicihwRorsM3b7mmtmK9c3",
        "stylegan-cats": "1MQywl0FNt6lHu8E_EUqnRbviagS7fbiJ",
    }
    return (
        {name: f"{_CDN}/{name}.pkl" for name in names}
        | {name: f"{_CDN}/table2/{name}.pkl" for name in table2}
        | {name: _DRIVE + identity for name, identity in drive.items()}
    )


KNOWN = _known()
"""URLs of the official TensorFlow files, by names such as "stylegan2-ffhq-config-f"."""


def bundled_path(source: str) -> Path | None:
    """Return the folder of the bundled network that a source names; None if it names none.

    A file or folder of that name comes first.
    """
    is_name = source == Path(source).name and not Path(source).exists()
    folder = BUNDLED / source
    return folder if is_name and (folder / "model.json").is_file() else None


def bundled_names() -> list[str]:
    """Return the names of the bundled networks."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/model.json"))


def url_of(source: str) -> str | None:
    """Return the URL that a source is or names; None for a path, also if a file has that name."""
    is_named = download.is_url(source) or source in KNOWN
    return KNOWN.get(source, source) if is_named and not Path(source).exists() else None
