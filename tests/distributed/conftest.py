import pytest
import torch

from stylegan import images


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    stream = torch.Generator().manual_seed(0)
    for index in range(24):
        image = torch.randint(0, 256, [3, 16, 16], generator=stream).to(torch.uint8)
        images.write(image, folder / f"{index:02d}.png")
    return folder
