"""Conversion of weight files."""

from pathlib import Path

from stylegan.interop import convert as interop
from stylegan.interop.convert import Conversion, Format
from stylegan.progress import Progress, counter


def convert(
    source: str | Path, out: Path, *, to: Format = "native", progress: Progress | None = None
) -> Conversion:
    """Convert weights between our format and those of other programs.

    Reads official pickles of ProGAN, StyleGAN and StyleGAN2 (TensorFlow and PyTorch), rosinality's
    files and native folders. The format and the architecture are detected from the contents of the
    file; no code in it is run.

    Args:
        source: a file, a folder, a URL (with #sha256=... to check it), or the name of an official
            file such as stylegan2-ffhq-config-f.
        out: a folder for the native format, else a file.
        to: "native" writes safetensors and JSON; "nvidia" writes state dicts for the official
            PyTorch classes; "rosinality" writes g_ema, latent_avg, g and d. The two latter load
            with torch.load and weights_only=True.
        progress: called while a URL is downloaded.

    Returns:
        What was read and written, with a summary of each network.

    Raises:
        WeightsError: if the source cannot be read, the format cannot hold its networks, or `out`
            exists.
    """
    return interop.convert(
        source, out, to=to, progress=counter(progress, "download, MB", scale=1e-6)
    )
