"""Projection of images into the latent space of a network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan.captions import Captions
from stylegan.devices import DeviceName
from stylegan.errors import ConfigError
from stylegan.images import grid, read, write
from stylegan.interop.load import origin_of, weights_path
from stylegan.latent.project import DEFAULTS, ProjectionConfig, Space
from stylegan.latent.projection_folder import VIDEO_FPS, BatchProjector, ProjectionFolder
from stylegan.latent.render import device_of
from stylegan.latent.saved import PROJECTION, SavedLatents, latents_of, read_latents
from stylegan.latent.targets import Target, read_targets, targets_of
from stylegan.latent.tune import TuneConfig, tune_generator
from stylegan.latent.video import check_video
from stylegan.models import io
from stylegan.models.base import AbstractGenerator, Networks
from stylegan.notebook import Picture
from stylegan.perceptual.detector import AbstractDistance
from stylegan.progress import Progress
from stylegan.workflows.networks import (
    Network,
    Perceptual,
    check_batch,
    check_folder,
    check_scale,
    class_number,
    fingerprint_of,
    label_of,
    load_generator,
    load_perceptual,
)

Images = Sequence[Path] | Sequence[str] | Path | str | Tensor
"""Files, folders and zips of images; or uint8 [N, C, R, R] of the network's size."""

_MAX_SHOWN = 16


@dataclass(frozen=True, kw_only=True)
class ProjectedImage:
    """The projection of one image.

    Attributes:
        name: the image's file name without its suffix; a number follows if it is not unique.
        target: the image in the network's size, uint8 [C, R, R].
        image: what the network makes of the latents, uint8 [C, R, R].
        ws: the latents, [1, num_ws, w_dim].
        distance: the perceptual distance.
        distance_name: its name; values of different distances cannot be compared.
        psnr: peak signal-to-noise ratio in dB; infinite if the images are equal.
        folder: the folder of the files; None if none were written.
        tuned_psnr: PSNR after tuning, if the network was tuned in this call.
    """

    name: str
    target: Tensor = field(repr=False)
    image: Tensor = field(repr=False)
    ws: Tensor = field(repr=False)
    distance: float
    distance_name: str
    psnr: float
    folder: Path | None = None
    tuned_psnr: float | None = None
    _noise: Mapping[str, Tensor] | None = field(default=None, repr=False)

    @property
    def noise(self) -> Mapping[str, Tensor]:
        """The noise maps by layer, [r, r]; empty if they were not optimized."""
        if self.folder is None:
            return self._noise or {}
        return read_latents(self.folder / PROJECTION).noise

    def picture(self) -> Picture:
        """Return the target and the network's image side by side."""
        return Picture(pixels=torch.cat([self.target, self.image], dim=2))

    def _repr_png_(self) -> bytes:
        return self.picture()._repr_png_()


@dataclass(frozen=True, kw_only=True)
class Projections:
    """The projections of images, as a sequence.

    Attributes:
        images: one for each image, in their order.
    """

    images: Sequence[ProjectedImage]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> ProjectedImage:
        return self.images[index]

    def __iter__(self) -> Iterator[ProjectedImage]:
        return iter(self.images)

    def picture(
        self, num: int = _MAX_SHOWN, *, captions: bool = False, scale: int | None = None
    ) -> Picture:
        """Return a grid of the first `num` projections: targets, and the network's images.

        Args:
            num: rows at most.
            captions: write the name below each target, and the distance below its projection.
            scale: enlarge the images by this whole number (default: with captions to 64 pixels or
                more).
        """
        shown = self.images[:num]
        pairs = [image for each in shown for image in (each.target, each.image)]
        texts = [
            text
            for each in shown
            for text in (each.name, f"{each.distance_name} {each.distance:.3f}")
        ]
        pixels = grid(
            torch.stack(pairs),
            columns=2,
            padding=2,
            captions=Captions(tiles=texts) if captions else None,
            scale=scale,
        )
        return Picture(pixels=pixels)

    def _repr_png_(self) -> bytes:
        return self.picture()._repr_png_()


def project(
    images: Images,
    network: Network,
    *,
    out: Path | str | None = None,
    space: Space = "w",
    init: Path | str | Tensor | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    pixel_weight: float | None = None,
    noise_maps: bool = True,
    perceptual: Perceptual | AbstractDistance = "auto",
    weights_dir: Path | None = None,
    class_index: str | int | None = None,
    tune: bool = False,
    video: bool = False,
    captions: bool = False,
    scale: int | None = None,
    batch: int | None = None,
    device: DeviceName | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Projections:
    """Find the latents from which a network reproduces images.

    For each image, OUT/NAME gets projected_w.npz in the official layout with the noise maps,
    target.png, projected.png, strip.png with intermediate steps, and project.json. An interrupted
    projection is resumed by the same call. Other commands take the latents in place of seeds:
    stylegan generate images --seeds OUT/NAME/projected_w.npz

    Args:
        images: image files, and folders or zips of them. The central square is used.
        network: a run folder, a native folder, a weight file, a URL or a known name.
        out: the folder to write to.
        space: "w" looks for one w for all layers, as in the paper; "w+" for one for each layer.
        init: a file with latents to start from, for all images or a row for each, instead of the
            mean of w. Its noise maps are used, or else the stored ones. The result is never
            farther from the image than these latents.
        steps: optimization steps of Adam (default 1000).
        learning_rate: maximum learning rate (default 0.1).
        pixel_weight: weight of the mean squared error of pixels (default 0, for w+ 1).
        noise_maps: optimize the noise maps too, otherwise keep the stored ones.
        perceptual: the distance: "lpips", whose weights are downloaded once; "efficientnet", which
            is EfficientNet-Lite0 of the extra [metrics]; "discriminator", the network's own; or
            "auto", LPIPS if its weights are on this machine, else EfficientNet-Lite0.
        weights_dir: a folder that holds weights of feature networks, to avoid a download.
        class_index: the class of a network with labels: its name, or its number from 0.
        tune: also tune a copy of the network to each image, in OUT/NAME/tuned.
        video: also write a video of the optimization, OUT/NAME/video.mp4.
        captions: in strip.png, write the image's name above the target, and the step above the
            others.
        scale: in strip.png, enlarge the images by this whole number (default: with captions to 64
            pixels or more).
        batch: images at once (default: suits their size).
        device: where to compute; "auto" prefers CUDA, then Apple's MPS. A loaded generator stays
            on its device.
        seed: seed of all random numbers.
        progress: called after each step.

    Returns:
        A projection for each image, in their order.

    Raises:
        StyleganError: if an option or a file cannot be used.
    """
    options: dict[str, Any] = {
        "num_steps": steps,
        "learning_rate": learning_rate,
        "pixel_weight": pixel_weight,
        "optimizes_noise": noise_maps,
    }
    given = {name: value for name, value in options.items() if value is not None}
    config = replace(DEFAULTS[space], **given)
    if batch is not None:
        check_batch(batch)
    check_scale(scale)
    folder = None if out is None else Path(out)
    check_folder(folder)
    written = {"tune": tune, "video": video, "captions": captions, "scale": scale is not None}
    if folder is None and any(written.values()):
        name = next(name for name, is_given in written.items() if is_given)
        raise ConfigError(f"{name} concerns the files in the output folder, so it needs out")
    if video and folder is not None:
        check_video(folder / "video.mp4", VIDEO_FPS)
    projector, _ = open_projector(
        network,
        perceptual=perceptual,
        weights_dir=weights_dir,
        class_index=class_index,
        config=config,
        device=device,
        seed=seed,
        progress=progress,
        init=init,
    )
    targets = targets_for(images, projector)
    if folder is None:
        return _in_memory(targets, projector, batch, progress)
    folders = projector.project_to_folders(
        targets, folder, batch=batch, keeps_frames=video, progress=progress
    )
    result = []
    for each in folders:
        each.warn_if_unlike()
        if captions or scale is not None:
            each.write_strip(captions=captions, scale=scale)
        if video and not each.folder.joinpath("video.mp4").exists():
            each.write_video()
        tuned_psnr = _tune(each, projector, seed=seed, progress=progress) if tune else None
        result.append(_read_projection(each, projector, tuned_psnr))
    return Projections(images=result)


def open_projector(
    network: Network,
    *,
    perceptual: Perceptual | AbstractDistance,
    weights_dir: Path | None,
    class_index: str | int | None,
    config: ProjectionConfig,
    device: DeviceName | torch.device,
    seed: int,
    progress: Progress | None = None,
    init: Path | str | Tensor | None = None,
) -> tuple[BatchProjector, Path | None]:
    """Load what images are projected with; arguments as of `project`.

    Returns:
        The projector, and the path of the weights; None for a loaded generator.
    """
    path = None if isinstance(network, AbstractGenerator) else weights_path(network)
    generator = load_generator(network if path is None else path, device, progress=progress)
    if path is None:
        origin: dict[str, object] = {"path": None, "sha256": fingerprint_of(generator)}
    else:
        origin = origin_of(path)
    label = label_of(class_index, generator)
    if not isinstance(perceptual, AbstractDistance):
        perceptual = load_perceptual(
            perceptual,
            network if path is None else path,
            weights_dir=weights_dir,
            device=device_of(generator),
            progress=progress,
        )
    projector = BatchProjector(
        generator,
        perceptual,
        config=config,
        label=label,
        seed=seed,
        setting={"network": origin, "class": class_number(class_index, generator)},
        initial=None if init is None else _latents(init, generator),
    )
    return projector, path


def _latents(init: Path | str | Tensor, generator: AbstractGenerator) -> SavedLatents:
    return latents_of(Path(init) if isinstance(init, str) else init, generator)


def targets_for(images: Images, projector: BatchProjector) -> list[Target]:
    """Read images in the size and channels of a projector's network."""
    size, pixels = projector.size, projector.generator.pixels
    if isinstance(images, Tensor):
        return targets_of(images, size=size, pixels=pixels)
    paths = [images] if isinstance(images, str | Path) else images
    return read_targets([Path(path) for path in paths], size=size, pixels=pixels)


def _in_memory(
    targets: Sequence[Target],
    projector: BatchProjector,
    batch: int | None,
    progress: Progress | None,
) -> Projections:
    projections = projector.project(targets, batch=batch, progress=progress)
    return Projections(
        images=[
            ProjectedImage(
                name=target.name,
                target=target.picture,
                image=projection.image,
                ws=projection.ws,
                distance=projection.distance,
                distance_name=projector.distance.name,
                psnr=projection.psnr,
                _noise=projection.noise,
            )
            for target, projection in zip(targets, projections, strict=True)
        ]
    )


def _read_projection(
    folder: ProjectionFolder, projector: BatchProjector, tuned_psnr: float | None
) -> ProjectedImage:
    psnr = folder.result["psnr"]
    return ProjectedImage(
        name=folder.target.name,
        target=folder.target.picture,
        image=read(folder.folder / "projected.png"),
        ws=read_latents(folder.folder / PROJECTION, projector.generator).ws,
        distance=folder.distance,
        distance_name=projector.distance.name,
        psnr=float("inf") if psnr is None else float(psnr),
        folder=folder.folder,
        tuned_psnr=tuned_psnr,
    )


def _tune(
    projection: ProjectionFolder,
    projector: BatchProjector,
    *,
    seed: int,
    progress: Progress | None,
) -> float | None:
    """Tune a copy of the network to an image and return its PSNR; None if that was done before."""
    folder = projection.folder / "tuned"
    if io.is_native(folder):
        return None
    saved = read_latents(projection.folder / PROJECTION, projector.generator)
    tuned = tune_generator(
        projector.generator,
        saved.ws,
        target=projection.target.image,
        noise=saved.noise,
        distance=projector.distance,
        config=TuneConfig(),
        c=projector.label,
        seed=seed,
        progress=progress,
    )
    write(tuned.image, projection.folder / "tuned.png")
    record = {
        "to": projection.target.path,
        "psnr": tuned.psnr,
        "of": projector.setting["network"],
    }
    io.save(Networks(generator_ema=tuned.generator), folder, metadata={"tuned": record})
    return tuned.psnr
