"""The state of training: everything that a training step changes."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from stylegan import distributed
from stylegan.augmentation.policy import Controller
from stylegan.errors import ConfigError, decided
from stylegan.losses.objective import LogitMeans
from stylegan.microbatch import BatchSlice
from stylegan.models.base import AbstractDiscriminator, AbstractGenerator, Networks
from stylegan.models.registry import build_discriminator, build_generator
from stylegan.nn.compiled import check_compiler, compile_blocks
from stylegan.pixel_format import PixelFormat
from stylegan.rng import generator_for
from stylegan.training.config import OptimConfig, RunConfig
from stylegan.training.path_features import PathFeatures
from stylegan.training.schedule import Stage, stage_at, whole_batch
from stylegan.training.stats import Averages

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class TrainState:
    """All mutable state of a run.

    Args:
        config: the run's options.
        device: device of the networks and optimizers.
        path_features: feature space of path lengths; None for pixels.

    Attributes:
        generator: G.
        generator_ema: exponential moving average of G, without gradients.
        discriminator: D.
        optimizer_g: Adam of G, with the correction for lazy path-length steps.
        optimizer_d: Adam of D, with the correction for lazy R1 steps.
        pl_mean: running mean of path lengths, [].
        logit_means: moving averages of D's mean logits, for LeCam.
        nimg: real images shown so far.
        iteration: number of finished iterations.
        skipped: number of optimizer steps skipped for non-finite gradients, [] on the device, so
            that counting does not wait for it.
        skipped_in_row: for each phase, how many of its last steps were skipped in a row, [].
        path_features: as given.
        augment_control: probability of augmentation, and what it follows from.
        averages: sums of the statistics since the last log record.
        batch_gpu: micro-batch size of this rank; None for one micro-batch.
        stage: level of detail, batch size and learning rates at `nimg`.
    """

    def __init__(
        self,
        config: RunConfig,
        device: torch.device,
        *,
        path_features: PathFeatures | None = None,
    ) -> None:
        self.config = config
        self.device = device
        # Parameters are drawn from torch's global generator: seed it here, and restore it.
        with torch.random.fork_rng(devices=[]):
            seed = generator_for("initialization", seed=config.seed).initial_seed()
            torch.default_generator.manual_seed(seed)  # of the CPU only
            generator = build_generator(config.family, config.generator)
            discriminator = build_discriminator(config.family, config.discriminator)
        self.generator = generator.to(device).train()
        self.discriminator = discriminator.to(device).train()
        self.generator_ema = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.generator.compute_dtype = DTYPES[decided(config.precision, "precision")]
        self.discriminator.compute_dtype = DTYPES[decided(config.precision, "precision")]
        for network in (self.generator, self.discriminator):
            network.activation_checkpointing = config.runtime.activation_checkpointing
        if config.runtime.compile:
            check_compiler(device)
            compile_blocks(self.generator.synthesis)
            compile_blocks(self.discriminator)
        freeze(config.optim, self.generator, self.discriminator)
        optim, loss = config.optim, config.loss
        self.optimizer_g = lazy_adam(self.generator, optim, optim.generator_lr, loss.pl_interval)
        self.optimizer_d = lazy_adam(
            self.discriminator, optim, optim.discriminator_lr, loss.r1_interval
        )
        self.pl_mean: Tensor = torch.zeros([], device=device)
        self.path_features = path_features
        zero = torch.zeros([], device=device)
        self.logit_means = LogitMeans(real=zero, fake=zero)
        self.nimg = 0
        self.iteration = 0
        self.skipped: Tensor = torch.zeros([], dtype=torch.int64, device=device)
        self.skipped_in_row: dict[str, Tensor] = {}
        self.augment_control = Controller(config.augment, device)
        self.averages = Averages()
        self.batch_gpu = config.runtime.batch_gpu
        self.stage = stage_at(config, 0)
        self._enter(self.stage)

    @property
    def pixels(self) -> PixelFormat:
        """What the channels of the images are. Set it to the format of the training set."""
        return self.generator.pixels

    @pixels.setter
    def pixels(self, pixels: PixelFormat) -> None:
        self.generator.pixels = self.generator_ema.pixels = pixels
        if self.path_features is not None:
            self.path_features.pixels = pixels

    def advance(self, num: int) -> None:
        """Count one iteration, and enter the stage that follows.

        Both optimizers are reset at the start and end of every fade. As this happens here, the
        state is always ready for the iteration at `nimg`, and a checkpoint needs no record of it.

        Source: the official code of ProGAN.

        Args:
            num: images of the iteration.
        """
        self.nimg += num
        self.iteration += 1
        stage = stage_at(self.config, self.nimg)
        if stage.key != self.stage.key:
            self.optimizer_g.state.clear()
            self.optimizer_d.state.clear()
        self._enter(stage)

    def _enter(self, stage: Stage) -> None:
        self.stage = stage
        for _, network in self.networks.items():
            network.lod = stage.lod
        loss = self.config.loss
        for optimizer, lr, interval in (
            (self.optimizer_g, stage.generator_lr, loss.pl_interval),
            (self.optimizer_d, stage.discriminator_lr, loss.r1_interval),
        ):
            for group in optimizer.param_groups:
                group["lr"] = lr * lazy_correction(interval)

    def whole_batch(self, num: int, *, shrink: int = 1) -> BatchSlice:
        """Return the slice of a whole batch; see `schedule.whole_batch`."""
        return whole_batch(self.config, num, shrink=shrink)

    def shard(self, num: int, *, shrink: int = 1) -> BatchSlice:
        """Return this rank's shard of a batch. Arguments as in `whole_batch`."""
        whole = self.whole_batch(num, shrink=shrink)
        return whole.shard(distributed.rank(), world_size=distributed.world_size())

    @property
    def num_skipped_in_row(self) -> int:
        """Steps of a phase that were skipped for non-finite gradients, up to the last one."""
        return max((int(num) for num in self.skipped_in_row.values()), default=0)

    @property
    def networks(self) -> Networks:
        """The networks that a snapshot contains."""
        return Networks(
            generator=self.generator,
            generator_ema=self.generator_ema,
            discriminator=self.discriminator,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the config, as tensors and plain values."""
        return {
            "generator": self.generator.state_dict(),
            "generator_ema": self.generator_ema.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer_g": self.optimizer_g.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
            "pl_mean": self.pl_mean,
            "path_scale": None if self.path_features is None else self.path_features.scale,
            "logit_means": {"real": self.logit_means.real, "fake": self.logit_means.fake},
            "nimg": self.nimg,
            "iteration": self.iteration,
            "skipped": int(self.skipped),
            "skipped_in_row": {phase: int(num) for phase, num in self.skipped_in_row.items()},
            "augment_control": self.augment_control.state_dict(),
            "averages": self.averages.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict` of a run with the same config."""
        self.generator.load_state_dict(state["generator"])
        self.generator_ema.load_state_dict(state["generator_ema"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer_g.load_state_dict(state["optimizer_g"])
        self.optimizer_d.load_state_dict(state["optimizer_d"])
        self.pl_mean = state["pl_mean"].to(self.device)
        if self.path_features is not None:
            self.path_features.scale = state["path_scale"]
        if "logit_means" in state:  # not in version 0.2
            means = {name: mean.to(self.device) for name, mean in state["logit_means"].items()}
            self.logit_means = LogitMeans(**means)
        self.nimg = state["nimg"]
        self.iteration = state["iteration"]
        self.skipped = torch.tensor(state["skipped"], device=self.device)
        self.skipped_in_row = {
            phase: torch.tensor(num, device=self.device)
            for phase, num in state["skipped_in_row"].items()
        }
        if "augment_control" in state:  # not in version 0.2
            self.augment_control.load_state_dict(state["augment_control"])
        self.averages.load_state_dict(state["averages"], device=self.device)
        self._enter(stage_at(self.config, self.nimg))


def freeze(
    config: OptimConfig, generator: AbstractGenerator, discriminator: AbstractDiscriminator
) -> None:
    """Exclude what a config names from training: its parameters get no gradients.

    Source: Mo et al. 2020, "Freeze the Discriminator: a Simple Baseline for Fine-Tuning GANs".

    Raises:
        ConfigError: if the discriminator has fewer layers, or the generator no mapping network.
    """
    layers = discriminator.block_layers
    if config.freeze_d > len(layers):
        raise ConfigError(
            f"optim.freeze_d must be at most {len(layers)}, the number of layers of this "
            f"discriminator before its 4x4 block, got {config.freeze_d}"
        )
    for layer in layers[: config.freeze_d]:
        layer.requires_grad_(False)
    if config.freeze_mapping:
        if not list(generator.mapping.parameters()):
            raise ConfigError("optim.freeze_mapping: this generator has no mapping network")
        generator.mapping.requires_grad_(False)


def lazy_adam(
    network: nn.Module, config: OptimConfig, lr: float, interval: int | None
) -> torch.optim.Adam:
    """Create Adam for a network, corrected for a regularizer with steps of its own.

    With a regularization step every k iterations there are k + 1 steps instead of k. With
    c = k / (k + 1), lr becomes c lr, and each beta becomes beta^c.

    Source: Karras et al. 2020 (StyleGAN2), appendix B, "lazy regularization".

    Args:
        network: the network whose parameters are optimized.
        config: betas and eps.
        lr: uncorrected learning rate.
        interval: k; None without a lazy regularizer.
    """
    c = lazy_correction(interval)
    betas = (config.beta1**c, config.beta2**c)
    # Fused Adam can skip a step without synchronizing with the CPU; see `PhaseStep.finish`. It
    # reads a gradient in the parameter's memory order (torch 2.13), which `backward` ensures.
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trained, lr=lr * c, betas=betas, eps=config.eps, fused=True)


def lazy_correction(interval: int | None) -> float:
    """Return c = k / (k + 1) for a lazy regularizer every k iterations, or 1 for none."""
    return 1.0 if interval is None else interval / (interval + 1)
