"""`stylegan project`: pictures to latents."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from stylegan import images
from stylegan.cli.drawing import Class, Network, PerceptualOption, WeightsDir
from stylegan.cli.options import Device, Seed, console, progress
from stylegan.cli.projections import VIDEO_FPS, Job, Projecting
from stylegan.errors import ConfigError
from stylegan.latent.project import DEFAULTS, ProjectionConfig, Space
from stylegan.latent.saved import PROJECTION, read_latents
from stylegan.latent.targets import read_targets
from stylegan.latent.tune import TuneConfig, tune
from stylegan.latent.video import check_video
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.workflows.networks import check_batch

_PROJECT = """Find the latents of which a network makes pictures: its own ones, or like them.

For each IMAGE (a file, or those in a folder or zip; the central square is taken) OUT/NAME gets
projected_w.npz, in the official layout, with the noise; target.png; projected.png; strip.png, from
the target over steps on the way to the result; and project.json. The same line goes on with what
was stopped. Other commands take the latents: stylegan generate images --seeds OUT/NAME/....npz

Example:
    stylegan project face.jpg --network runs/faces --out projected
    stylegan project photos/ --network runs/faces --space w+ --perceptual efficientnet --out out"""


@dataclass(frozen=True, kw_only=True)
class Project:
    """Options of `stylegan project`."""

    paths: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="IMAGE...", help="Pictures, and folders or zips of them."),
    ]
    network: Network
    out: Annotated[Path, tyro.conf.arg(metavar="DIR", help="The folder to write to.")]
    space: Annotated[
        Space, tyro.conf.arg(help="One w for all layers, as the paper has it, or one for each.")
    ] = "w"
    steps: Annotated[
        int | None, tyro.conf.arg(metavar="N", help="Steps of Adam; left out: 1000.")
    ] = None
    learning_rate: Annotated[
        float | None, tyro.conf.arg(help="Its largest value; left out: 0.1.")
    ] = None
    pixel_weight: Annotated[
        float | None,
        tyro.conf.arg(help="Weight of squared errors of pixels; left out: 0, in w+ 1."),
    ] = None
    noise_maps: Annotated[
        bool, tyro.conf.arg(help="Look for noise maps, too; else the stored ones stay.")
    ] = True
    perceptual: PerceptualOption = "lpips"
    weights_dir: WeightsDir = None
    class_index: Class = None
    tune: Annotated[
        tyro.conf.FlagCreatePairsOff[bool],
        tyro.conf.arg(help="Then tune a copy of the network to each picture: OUT/NAME/tuned."),
    ] = False
    video: Annotated[
        tyro.conf.FlagCreatePairsOff[bool],
        tyro.conf.arg(help="Write OUT/NAME/video.mp4 of the way to the result."),
    ] = False
    batch: Annotated[
        int | None,
        tyro.conf.arg(metavar="N", help="Pictures at once; left out: as many as suit their size."),
    ] = None
    device: Device = "auto"
    seed: Seed = 0

    def run(self) -> int:
        """Project what is not projected yet."""
        config = self._config()
        if self.batch is not None:
            check_batch(self.batch)
        if self.out.is_file():
            raise ConfigError(
                f"--out {self.out} is a file", expected="a folder", fix="choose another name"
            )
        if self.video:
            check_video(self.out / "video.mp4", VIDEO_FPS)
        work = Projecting(
            self.network,
            device=self.device,
            perceptual=self.perceptual,
            weights_dir=self.weights_dir,
            class_index=self.class_index,
            config=config,
            seed=self.seed,
        )
        targets = read_targets(self.paths, side=work.side, num_channels=work.generator.img_channels)
        jobs = work.project(targets, self.out, batch=self.batch, keeps_frames=self.video)
        for job in jobs:
            if self.video and not job.folder.joinpath("video.mp4").exists():
                job.write_video()
            if self.tune:
                _tune(job, work, seed=self.seed)
            console().print(job.line(), markup=False)
        return 0

    def _config(self) -> ProjectionConfig:
        changes: dict[str, Any] = {
            "num_steps": self.steps,
            "learning_rate": self.learning_rate,
            "pixel_weight": self.pixel_weight,
            "optimizes_noise": self.noise_maps,
        }
        given = {name: value for name, value in changes.items() if value is not None}
        return replace(DEFAULTS[self.space], **given)


def _tune(job: Job, work: Projecting, *, seed: int) -> None:
    """Tune a copy of the network to a picture, unless that is done."""
    folder = job.folder / "tuned"
    if io.is_native(folder):
        return
    saved = read_latents(job.folder / PROJECTION, work.generator)
    config = TuneConfig()
    with progress() as bar:
        task = bar.add_task(f"{job.target.name}: tuning", total=config.num_steps)
        tuned = tune(
            work.generator,
            saved.ws,
            target=job.target.image,
            noise=saved.noise,
            distance=work.distance,
            config=config,
            c=work.label,
            seed=seed,
            on_step=lambda: bar.advance(task),
        )
    images.write(tuned.image, job.folder / "tuned.png")
    made = {"to": job.target.path, "psnr": tuned.psnr, "of": work.setting["network"]}
    io.save(Networks(generator_ema=tuned.generator), folder, metadata={"tuned": made})
    console().print(f"{folder}: PSNR {tuned.psnr:.1f} dB", markup=False)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan project` with its arguments, and return the exit status.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    command = tyro.cli(Project, prog="stylegan project", description=_PROJECT, args=arguments)
    return command.run()
