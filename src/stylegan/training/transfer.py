"""Transfer learning: a new run starts from the weights of other networks."""

import logging

from stylegan.errors import ConfigError
from stylegan.models.base import Networks
from stylegan.training.state import TrainState

logger = logging.getLogger(__name__)


def copy_matching_weights(state: TrainState, initial: Networks) -> None:
    """Copy the tensors whose names and shapes agree into a new run, and log how many did.

    Raises:
        ConfigError: if no tensor fits one of the run's networks.
    """
    sources = {name: dict(network.state_dict()) for name, network in initial.items()}
    average = sources.get("generator_ema") or sources.get("generator")
    source_of = {
        "generator": sources.get("generator") or average,
        "generator_ema": average,
        "discriminator": sources.get("discriminator"),
    }
    for name, network in state.networks.items():
        source = source_of[name]
        if source is None:
            logger.warning("%s: not in the source, starts with random weights", name)
            continue
        target = network.state_dict()
        matching = {
            key: value
            for key, value in source.items()
            if key in target and target[key].shape == value.shape
        }
        if not matching:
            raise ConfigError(
                f"--init-from has no weight that fits the {name}",
                fix="choose weights of the same family, and leave out options that change the "
                "architecture",
            )
        network.load_state_dict(target | matching)
        num_new, num_dropped = len(target) - len(matching), len(source) - len(matching)
        logger.info(
            "%s: %d tensors kept, %d new, %d dropped", name, len(matching), num_new, num_dropped
        )
