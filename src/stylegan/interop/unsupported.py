"""Files of other programs, recognized by the names of their tensors and refused by name."""

import re
from dataclasses import dataclass

from stylegan.errors import WeightsError
from stylegan.interop.restricted import quoted
from stylegan.interop.torch_file import TorchFile


@dataclass(frozen=True)
class Program:
    """A program whose networks are not those of this package.

    Attributes:
        pattern: regular expression for the start of a tensor's name.
        name: of the program and the network.
        reason: why the file is not read.
        fix: what to do instead.
    """

    pattern: str
    name: str
    reason: str
    fix: str


_TRAIN = "generate with that program, or train a network here on the same images"
PROGRAMS = (
    Program(
        r"(G|GE|S|SE|D)\.(blocks|net|initial_block|initial_conv)\b",
        "lucidrains' stylegan2-pytorch",
        "its network is not StyleGAN2 of the paper: other upsampling, noise and weight scales",
        _TRAIN,
    ),
    Program(
        r"(generator_ema\.|generator\.)?style_mapping\.",
        "MMGeneration or MMagic",
        "the scales of its tensors are not known here",
        "use the official file that its converted weights come from (docs/weights.md), or "
        "generate with that program",
    ),
    Program(
        r"(module\.)?(stylegan_decoder\.)?style_convs\.\d+\.",
        "BasicSR or GFPGAN, of the variant clean or bilinear",
        "this variant upsamples without the filters of StyleGAN2",
        "use the original variant, whose file has tensors named smooth.kernel",
    ),
    Program(
        r"(module\.)?conv_body\.\d+\.",
        "BasicSR's discriminator",
        "only the generators of BasicSR are read",
        "use its net_g file",
    ),
    Program(
        r"(module\.)?generator\.progression\.\d+\.",
        "rosinality's style-based-gan-pytorch",
        "its StyleGAN has another file format than its StyleGAN2",
        "use the official StyleGAN file (docs/weights.md), or generate with that program",
    ),
)
"""Programs, the most specific first."""


def refuse(file: TorchFile) -> WeightsError:
    """Return the error for a file of torch.save that cannot be read, with its program's name."""
    keys = [key for key in file.root if isinstance(key, str)]
    names = [name for key in (None, *keys) for name in file.names(key)]
    for program in PROGRAMS:
        if any(re.match(program.pattern, name) for name in names):
            return WeightsError(
                f"{file.origin} is a file of {program.name}: {program.reason}", fix=program.fix
            )
    shown = ", ".join(quoted(key) for key in list(file.root)[:5])
    return WeightsError(
        f"{file.origin} holds {shown or 'nothing'}",
        expected="official state dicts (G, D, G_ema), rosinality's (g, d, g_ema) or BasicSR's "
        "(params_ema)",
        fix="docs/weights.md lists the files that can be read",
    )
