"""Options of the commands that draw with a network."""

from pathlib import Path
from typing import Annotated

import tyro

from stylegan.workflows.networks import Perceptual

Network = Annotated[
    str, tyro.conf.arg(metavar="NET", help="A run folder, a native folder or a weight file.")
]
Keys = Annotated[
    str,
    tyro.conf.arg(
        metavar="KEYS", help='Seeds and files of latents, such as "0-63,projected/cat.npz".'
    ),
]
NoiseFrom = Annotated[
    Path | None,
    tyro.conf.arg(metavar="FILE.npz", help="Take the noise of all images from saved latents."),
]
Psi = Annotated[
    float, tyro.conf.arg(help="Truncation: 1 for full variation, 0 for the mean image.")
]
Cutoff = Annotated[
    int | None,
    tyro.conf.arg(metavar="N", help="Truncate the N coarsest layers only; left out: all."),
]
Class = Annotated[
    int | None,
    tyro.conf.arg(name="class", metavar="N", help="The class, from 0, of a generator with labels."),
]
PerceptualOption = Annotated[
    Perceptual,
    tyro.conf.arg(
        help="The distance: the published LPIPS, whose weights are downloaded once; "
        "EfficientNet-Lite0, of the extra [metrics]; or the network's own discriminator."
    ),
]
WeightsDir = Annotated[
    Path | None,
    tyro.conf.arg(metavar="DIR", help="A folder into which weights of feature networks were put."),
]
Batch = Annotated[
    int, tyro.conf.arg(metavar="N", help="Images at once on a GPU; the CPU makes one at a time.")
]
