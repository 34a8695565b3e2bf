"""The model card: a README in Markdown with all that is recorded of a network."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from stylegan import __version__
from stylegan.download import is_url
from stylegan.errors import ConfigError
from stylegan.image_size import ImageSize
from stylegan.models.base import AbstractGenerator, Networks, num_parameters
from stylegan.models.registry import family_of
from stylegan.training.config import SHORT_NAMES, RunConfig
from stylegan.training.configure import chosen_options
from stylegan.training.history import Stage
from stylegan.training.presets import PRESETS

UNKNOWN = "not recorded"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A picture of samples.

    Attributes:
        file: name in the folder.
        caption: what it shows.
    """

    file: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What only a person can say. Empty: a default.

    Attributes:
        title: the heading.
        about: what the network is, in Markdown.
        limits: what it cannot do, in Markdown.
        license: identifier of Hugging Face, such as "apache-2.0", or another name.
        data_license: license of the training images.
    """

    title: str = ""
    about: str = ""
    limits: str = ""
    license: str = ""
    data_license: str = ""


def render_card(
    networks: Networks,
    *,
    name: str,
    texts: Texts,
    stages: Sequence[Stage],
    data_rows: Sequence[tuple[str, str]],
    files: Sequence[tuple[str, str]],
    samples: Sequence[Sample],
    directions: Sequence[str],
    curves: str | None,
    records: Sequence[Mapping[str, Any]],
    metrics_note: str,
    calibration: str,
    perceptual: str,
) -> str:
    """Return the model card.

    Args:
        networks: `generator_ema`, and perhaps the discriminator.
        name: of the folder.
        texts: what only a person can say.
        stages: as of `training.history.stages_of`; the last has its options in "run".
        data_rows: name and value of facts about the training images.
        files: name and content of each file.
        samples: the first is shown at the top.
        directions: names of the files of directions.
        curves: file of the curves; None for none.
        records: of the metrics.
        metrics_note: what was measured, one sentence or several.
        calibration: the calibration in words; empty for none.
        perceptual: the distance of the calibration.
    """
    generator = networks.generator_ema
    assert generator is not None
    size = str(generator.current_size)
    family = family_of(generator)
    run = stages[-1]["run"]
    data_name = Path(run["data"]["path"]).stem
    license_id, license_name = _license_fields(texts.license)
    has_mean = generator.w_avg is not None
    about = texts.about or (
        f"A {family} generator of {size} images, trained on {data_name} with the Python package "
        f"stylegan {__version__} (ProGAN, StyleGAN and StyleGAN2 in PyTorch)."
    )
    limits = texts.limits or (
        f"It generates images of {size} pixels like those of its training set, and inherits "
        "their bias. It may reproduce training images. Truncation (psi below 1) gives better "
        "images with less variety."
    )
    license_text = (
        f"Weights: {texts.license}." if texts.license else "No license of the weights was stated."
    )
    license_text += (
        f" Training images: {texts.data_license}."
        if texts.data_license
        else " The license of the training images was not stated."
    )
    return (
        _environment()
        .get_template("card.md")
        .render(
            name=name,
            title=texts.title or name,
            about=about,
            limits=limits,
            license_id=license_id,
            license_name=license_name,
            license_text=license_text,
            data_name=data_name,
            family=family,
            preset=run["preset"],
            network=_network_rows(networks, generator, size),
            psi_option="--psi 0.7 " if has_mean else "",
            psi_argument=", psi=0.7" if has_mean else "",
            class_option="--class 0 " if generator.c_dim else "",
            class_argument=", class_index=0" if generator.c_dim else "",
            has_discriminator=networks.discriminator is not None,
            has_directions=len(directions) > 0,
            directions=directions,
            data=data_rows,
            files=files,
            samples=samples,
            stages=[_stage_row(index, stage) for index, stage in enumerate(stages, 1)],
            totals=_totals(stages),
            commands=commands_of(stages, name=name),
            curves=curves,
            metrics=[_metric_row(record) for record in records],
            metrics_note=metrics_note,
            calibration=calibration,
            perceptual=perceptual,
        )
    )


def commands_of(stages: Sequence[Stage], *, name: str) -> list[str]:
    """Return the commands that train a network again, one for each stage.

    It is empty if a preset of this version did not start each of the runs.

    Args:
        stages: as of `training.history.stages_of`.
        name: of the network; the last run is `runs/NAME`.
    """
    commands = []
    known = [stage for stage in stages if stage["run"] is not None]
    initial = None
    for number, stage in enumerate(known, 1):
        run_dir = f"runs/{name}" if number == len(known) else f"runs/{name}-{number}"
        try:
            config = RunConfig.from_json(stage["run"])
            if config.preset not in PRESETS:
                return []
            before = None if number == 1 else RunConfig.from_json(known[number - 2]["run"])
            options = chosen_options(
                config,
                num_images=stage["num_images"],
                initial=None if before is None else [before.generator, before.discriminator],
                grown_to=None if before is None else before.generator.size.nominal,
            )
        except ConfigError:  # a run of another version
            return []
        initial = config.init_from if before is None else initial
        words = ["--preset", config.preset, "--data", Path(config.data.path).name]
        words += ["--resolution", str(config.generator.resolution)]
        words += ["--cond"] if config.data.labels else []
        words += ["--init-from", initial] if initial is not None else []
        words += [word for option in _flags(options) for word in option]
        commands.append(shlex.join(["stylegan", "train", *words, "--out", run_dir]))
        is_last = stage["nimg"] is None or stage["nimg"] >= round(config.output.total_kimg * 1000)
        initial = run_dir if is_last else f"{run_dir}/snapshots/{stage['nimg']:09d}"
    return commands


def size_of(run: Mapping[str, Any]) -> str:
    """Return the size of the images of a run, such as "64x64" (height x width)."""
    return str(ImageSize.of(run["generator"]["resolution"]))


def without_folders(value: Any, names: Mapping[str, str] | None = None) -> Any:
    """Return JSON data in which paths have lost their folders, which are those of one machine.

    Args:
        value: the data. Paths are the texts under "path", "init_from" and "source".
        names: what other paths become.
    """
    if isinstance(value, Mapping):
        return {
            key: _short_path(item, names or {})
            if key in ("path", "init_from", "source") and isinstance(item, str)
            else without_folders(item, names)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_folders(item, names) for item in value]
    return value


def _short_path(path: str, names: Mapping[str, str]) -> str:
    return path if is_url(path) else names.get(path, Path(path).name)


def _flags(options: Mapping[str, Any]) -> Iterable[list[str]]:
    """Yield the words of each option on the command line."""
    rest = dict(options)
    for short, names in SHORT_NAMES.items():
        values = [rest.get(name) for name in names]
        if all(name in rest for name in names) and all(value == values[0] for value in values):
            yield _words(short, values[0])
            for name in names:
                del rest[name]
    for name, value in rest.items():
        yield _words(name, value)


def _words(name: str, value: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        section, dot, key = flag.removeprefix("--").rpartition(".")
        return [flag if value else f"--no-{section}{dot}{key}"]
    if isinstance(value, Mapping):
        return [flag, ",".join(f"{key}:{item:g}" for key, item in value.items()) or "none"]
    return [flag, "none" if value is None else str(value).removesuffix(".0")]


def _license_fields(text: str) -> tuple[str, str]:
    """Return the license of the front matter, and the name of one that has no identifier."""
    if not text:
        return "unknown", ""
    return (text, "") if re.fullmatch(r"[a-z0-9][a-z0-9.-]*", text) else ("other", text)


def _network_rows(
    networks: Networks, generator: AbstractGenerator, size: str
) -> list[tuple[str, str]]:
    colors = {1: "grey", 3: "RGB"}.get(generator.img_channels, f"{generator.img_channels} channels")
    rows = [
        ("family", family_of(generator)),
        ("images", f"{size} {colors}"),
        ("parameters of the generator", f"{num_parameters(generator):,}"),
    ]
    if networks.discriminator is not None:
        number = f"{num_parameters(networks.discriminator):,}"
        rows.append(("parameters of the discriminator", number))
    rows.append(("z, style inputs", f"{generator.z_dim} numbers, {generator.num_ws} style inputs"))
    if generator.c_dim:
        names = ", ".join(generator.class_names)
        rows.append(("labels", f"{generator.c_dim}" + (f": {names}" if names else "")))
    return rows


def _stage_row(number: int, stage: Stage) -> list[str]:
    run, nimg, seconds = stage["run"], stage["nimg"], stage["seconds"]
    before = "random weights" if number == 1 else f"run {number - 1}"
    if number == 1 and run is not None and run["init_from"] is not None:
        before = str(run["init_from"])
    if run is None:
        return ["", UNKNOWN, "", "", "", "", "", str(stage["source"])]
    return [
        str(number),
        run["preset"],
        Path(run["data"]["path"]).name,
        size_of(run),
        UNKNOWN if nimg is None else f"{nimg:,}",
        UNKNOWN if seconds is None else _duration(seconds),
        stage["machine"] or UNKNOWN,
        before,
    ]


def _totals(stages: Sequence[Stage]) -> str:
    """Return images shown and time of all stages in one sentence."""
    images = [stage["nimg"] for stage in stages]
    seconds = [stage["seconds"] for stage in stages]
    least = "at least " if None in images or None in seconds else ""
    return (
        f"In all {least}{sum(num or 0 for num in images):,} images shown in "
        f"{_duration(sum(each or 0 for each in seconds))}; times include metrics."
    )


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.1f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"


_SHOWN_ELSEWHERE = (
    *("name", "features", "num_fake", "num_real", "full"),
    *("spreads_real", "follows_mirroring"),
)
"""Settings of a protocol that other columns have."""


def _metric_row(record: Mapping[str, Any]) -> list[str]:
    values = record.get("values") or {"value": record["value"]}
    error = record.get("error")
    fake, real = record.get("fake") or {}, record.get("real")
    shown = [
        (f"{name} {value:.5g}" if len(values) > 1 else f"{value:.5g}")
        + (f" ± {error:.2g}" if error is not None and value == record["value"] else "")
        for name, value in values.items()
    ]
    names = {"seed": "seed", "truncation": "psi", "noise": "noise", "precision": "precision"}
    settings = [f"{names[key]} {_plain(fake[key])}" for key in names if fake.get(key) is not None]
    if real is not None:
        settings.append(f"real images {real['choice']}" + ", mirrored" * bool(real["mirrored"]))
    settings += [
        f"{key} {_plain(item)}"
        for key, item in (record.get("protocol") or {}).items()
        if key not in _SHOWN_ELSEWHERE and isinstance(item, int | float | str) and item is not False
    ]
    return [
        record["metric"],
        ", ".join(shown),
        f"{fake['num']:,}" if "num" in fake else "",
        "" if real is None else f"{real['num']:,}",
        str((record.get("features") or {}).get("name", "")),
        ", ".join(settings),
    ]


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: object) -> str:
    """Return a text for a cell of a table, on one line."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _table(rows: Sequence[tuple[str, str]]) -> str:
    """Return a table of names and values."""
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines])


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stylegan.workflows"),
        autoescape=False,  # Markdown
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = _cell
    environment.globals["table"] = _table
    return environment
