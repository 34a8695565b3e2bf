"""Degradations of images, each with a strength."""

import io

import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.cluster import KMeans

from stylegan import images
from stylegan.rng import generator_for

NUM_KINDS = 32


def blur(batch, deviation):
    """Blur uint8 [N, C, H, W] with a Gaussian of a std in pixels; borders are reflected."""
    reach = max(1, round(3 * deviation))
    places = torch.arange(-reach, reach + 1, dtype=torch.float32)
    taps = torch.softmax(-(places**2) / (2 * deviation**2), dim=0)
    num, channels = batch.shape[:2]
    x = F.pad(batch.float().flatten(0, 1)[:, None], [reach] * 4, mode="reflect")
    x = F.conv2d(F.conv2d(x, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))
    return x.view(num, channels, *batch.shape[2:]).round().clamp(0, 255).to(torch.uint8)


def add_noise(batch, deviation, *, seed=0):
    """Add white Gaussian noise to uint8 [N, C, H, W], of a std in 8-bit levels."""
    noise = torch.randn(batch.shape, generator=generator_for("added noise", seed=seed))
    return (batch + deviation * noise).round().clamp(0, 255).to(torch.uint8)


def compress(batch, quality):
    """Encode uint8 [N, 3, H, W] as JPEG of a quality from 1 to 95, and decode it."""
    return torch.stack([_compressed(image, quality) for image in batch])


def _compressed(image, quality):
    buffer = io.BytesIO()
    images.to_pil(image).save(buffer, "JPEG", quality=quality)
    return images.from_pil(Image.open(buffer).convert("RGB"))


def kinds_of(features):
    """Cluster images into `NUM_KINDS` kinds by their features [N, D]; return the kind of each."""
    machine = KMeans(n_clusters=NUM_KINDS, n_init=1, random_state=0)
    return torch.from_numpy(machine.fit_predict(features)).long()


def drop_kinds(kinds, num_kept, *, seed=0):
    """Return indices of images, in which only `num_kept` kinds of images occur.

    Images of the other kinds are replaced by repeats of the remaining images, each repeated equally
    often, give or take one. A larger number keeps all kinds that a smaller number keeps.
    """
    order = torch.randperm(NUM_KINDS, generator=generator_for("kinds", seed=seed))
    is_kept = torch.isin(kinds, order[:num_kept])
    kept = is_kept.nonzero().flatten()
    places = torch.arange(len(kinds))
    repeats = torch.arange(int((~is_kept).sum())) % len(kept)
    shuffled = kept[torch.randperm(len(kept), generator=generator_for("repeats", seed=seed))]
    places[~is_kept] = shuffled[repeats]
    return places
