"""The documentation says what the code does: links, commands, options, numbers, texts."""

import ast
import contextlib
import dataclasses
import importlib
import io
import re
import runpy
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import stylegan
from stylegan.cli.main import COMMANDS
from stylegan.cli.parser import Parser
from stylegan.cli.train import understand
from stylegan.models.base import num_parameters
from stylegan.models.registry import FAMILIES, build_discriminator, build_generator, configs_for
from stylegan.profiling.estimate import estimate
from stylegan.training.config import FROM_IMAGES, option_types
from stylegan.training.configure import configure
from stylegan.training.presets import PRESETS
from stylegan.workflows.recipe import load_recipe

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "stylegan"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
ERRORS = {"StyleganError", "ConfigError", "DataError", "CheckpointError", "WeightsError"}
ERROR_MAKERS = {  # which argument of a function that makes an error says what was found
    "refusal": 0,
    "_refusal": 0,
    "_damaged": 0,
    "_inexpressible": 1,
    "_unavailable": 1,
}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield language and content of each fenced block."""
    for match in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL):
        yield match[2], textwrap.dedent(match[3])


def prose(text: str) -> str:
    return re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(text))


def broken(document: Path, text: str) -> list[str]:
    found = []
    for link in links(text):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            found.append(link)
    return found


def shell_lines(text: str) -> Iterator[str]:
    """Yield the lines of shell blocks; what is indented, or follows a backslash, is joined."""
    for language, content in blocks(text):
        if language in ("", "sh"):
            joined = re.sub(r"\\?\n\s+(?=\S)", " ", content)
            yield from (line.strip() for line in joined.splitlines() if line.strip())


def command_lines(text: str) -> list[list[str]]:
    """Return the arguments of each `stylegan ...` line; of alternatives a|b the first is taken."""
    found = []
    for line in shell_lines(text):
        line = line.removeprefix(".venv/bin/")
        if line.startswith("stylegan "):
            line, _, _ = line.partition(" > ")
            words = shlex.split(re.sub(r"[\[\]]", "", line), comments=True)[1:]
            found.append([word.partition("|")[0] for word in words])
    return found


class ParsedError(Exception):
    """Ends a command once its line is understood."""

    def __init__(self, options: object) -> None:
        super().__init__(options)
        self.options = options


def parse(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """Return the options that a command line means, without running the command."""
    understand = Parser.values

    def parse_only(parser: Parser, arguments: list[str]) -> None:
        raise ParsedError(understand(parser, arguments))

    complaint = io.StringIO()
    with monkeypatch.context() as patch, contextlib.redirect_stderr(complaint):
        patch.setattr(Parser, "values", parse_only)
        try:
            importlib.import_module(COMMANDS[arguments[0]][0]).main(arguments[1:])
        except ParsedError as parsed:
            return parsed.options
        except SystemExit:
            raise AssertionError(f"{shlex.join(arguments)}\n{complaint.getvalue()}") from None
    raise AssertionError(f"{arguments[0]} parses no arguments")


def check_train_line(arguments: list[str]) -> None:
    """Check that a line of `stylegan train` is understood, with options that can be resolved."""
    complaint = io.StringIO()
    if not {"--preset", "--recipe"} & {*arguments}:  # continues a run, which is not there
        arguments = ["--preset", "stylegan2-small", "--data", "photos", *arguments]
    with contextlib.chdir(ROOT), contextlib.redirect_stderr(complaint):
        try:
            call, options, _ = understand(arguments)
        except SystemExit:
            raise AssertionError(f"{shlex.join(arguments)}\n{complaint.getvalue()}") from None
    preset = call["preset"] or load_recipe(ROOT / call["recipe"]).arguments["preset"]
    configure(preset, options | {"cond": False, "device": "cpu"}, resolution=64)


def rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of each row of each table."""
    for line in text.splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(document):
    assert broken(document, document.read_text(encoding="utf-8")) == []


def test_a_broken_link_or_anchor_is_noticed():
    text = "[a](nowhere.md) [b](train.md#no-such-heading) [c](train.md#gamma) [d](#gamma)"
    assert broken(ROOT / "docs" / "train.md", text) == ["nowhere.md", "train.md#no-such-heading"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_line_that_is_shown_is_one(document, monkeypatch):
    for arguments in command_lines(document.read_text(encoding="utf-8")):
        if arguments[0] == "completion":
            assert importlib.import_module(COMMANDS["completion"][0]).main(arguments[1:]) == 0
        elif arguments[0] == "train":
            check_train_line(arguments[1:])
        else:
            parse(arguments, monkeypatch)


def test_command_lines_are_found_and_wrong_ones_noticed(monkeypatch):
    shown = (
        "```\nstylegan data prepare A B.zip --resolution 4 [--crop center|wide]\n    [--on-bad x]"
    )
    (arguments,) = command_lines(shown + "\n```\n")
    assert arguments[-4:] == ["--crop", "center", "--on-bad", "x"]
    with pytest.raises(AssertionError, match="--on-bad"):
        parse(arguments, monkeypatch)
    assert sum(len(command_lines(path.read_text("utf-8"))) for path in DOCUMENTS) >= 15


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_make_target_that_is_shown_is_there(document):
    targets = re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE)
    for line in shell_lines(document.read_text(encoding="utf-8")):
        if line.startswith("make "):
            assert shlex.split(line, comments=True)[1] in targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_that_is_shown_imports_what_is_there(document):
    if document.name == "style.md":
        return  # its examples are of form
    for language, content in blocks(document.read_text(encoding="utf-8")):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module}.{alias.name}"
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "stylegan":
                assert node.attr in [*stylegan.__all__, "models", "training"], node.attr


@pytest.mark.parametrize("name", PRESETS)
def test_the_readme_has_a_row_for_each_preset(name):
    preset = PRESETS[name].run
    (row,) = [row for row in rows(read("README.md")) if row[0] == f"`{name}`"]
    numbers = [
        f"{preset.batch}",
        f"{preset.optim.generator_lr:g}",
        f"{preset.output.total_kimg:,.0f}",
    ]
    assert [row[3], row[4], row[6]] == numbers
    assert row[5].split()[0] == (f"{preset.loss.gamma:g}" if preset.loss.gamma > 0 else "none")
    is_small = name == "stylegan2-small"
    pair = [num / 1e6 for num in count(name, 64 if is_small else 1024)]
    shown = " / ".join(f"{num:.{2 if is_small else 1}f} M" for num in pair)
    assert row[2] == shown + (" at 64x64" if is_small else "")


def preset_rows(section: str) -> dict[str, dict[str, str]]:
    """Return the rows of a table of docs/configs.md, by preset and column."""
    text = read("docs/configs.md").partition(f"### {section}\n")[2].partition("\n##")[0]
    header, *body = rows(text)
    return {
        row[0].strip("`"): dict(zip(header, row, strict=True))
        for row in body
        if row[0].startswith("`")
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_fields_that_are_named_are_options_of_a_run(document):
    if document.name == "CHANGELOG.md":
        return  # it also has names of earlier versions
    known = {name for family in FAMILIES for name in option_types(family)} | set(FROM_IMAGES)
    sections = {name.partition(".")[0] for name in known if "." in name} - {"data"}
    text = document.read_text(encoding="utf-8")
    for section, field in re.findall(r"[` ](\w+)\.(\w+)[`=]", text):
        if section in sections and field not in ("pt", "py"):
            assert f"{section}.{field}" in known


@pytest.mark.parametrize("name", PRESETS)
def test_the_page_on_configurations_has_the_networks_of_each_preset(name):
    family, generator, discriminator = configs_for(name, 64)
    row = preset_rows("Networks")[name]
    assert row["family"] == family
    for network in (generator, discriminator):
        widths = f"{network.channel_base}, {network.channel_max}"
        assert row["`channel_base`, `channel_max`"] == widths
    architectures = [
        getattr(network, "architecture", "growing") for network in (generator, discriminator)
    ]
    assert row["generator, discriminator"] == ", ".join(architectures)
    assert row["z, w"] == f"{generator.z_dim}, {getattr(generator, 'w_dim', 'none')}"
    assert row["mapping layers"] == f"{getattr(generator, 'mapping_layers', 'none')}"


@pytest.mark.parametrize("name", PRESETS)
def test_the_page_on_configurations_has_the_training_of_each_preset(name):
    preset, row = PRESETS[name].run, preset_rows("Training")[name]
    loss, growth = preset.loss, preset.growth
    assert row["loss"] == loss.adversarial
    assert row["R1 gamma"] == (f"{loss.gamma:g}" if loss.gamma > 0 else "none")
    lazy = "each iteration" if loss.r1_interval is None else f"every {loss.r1_interval}"
    assert row["R1"] == (lazy if loss.gamma > 0 else "")
    paths = f"{loss.pl_weight:g}, every {loss.pl_interval}"
    assert row["path length"] == ("" if loss.pl_weight == 0 else paths)
    assert row["mixing"] == f"{100 * loss.mixing_prob:g} %"
    assert row["first"] == preset.optim.order[0].upper()
    side = None if growth is None else growth.initial_resolution
    assert row["grows"] == ("no" if side is None else f"from {side}x{side}")
    assert [row["learning rate"], row["batch"]] == [
        f"{preset.optim.generator_lr:g}",
        f"{preset.batch}",
    ]
    assert row["kimg"] == f"{preset.output.total_kimg:,.0f}"


def test_the_page_on_configurations_has_the_schedule_of_growing():
    text = read("docs/configs.md").partition("### Growing\n")[2].partition("\n## ")[0]
    (_, *sides), (_, *batches), (_, *lrs) = rows(text)
    for preset in (row.run for row in PRESETS.values()):
        if preset.growth is not None:
            for side, batch, lr in zip(sides, batches, lrs, strict=True):
                assert preset.growth.batches.get(side, preset.batch) == int(batch)
                assert preset.growth.lrs.get(side, preset.optim.generator_lr) == float(lr)
            assert (preset.growth.train_kimg, preset.growth.fade_kimg) == (600, 600)


def count(name: str, resolution: int, **architecture: str) -> tuple[int, int]:
    family, generator, discriminator = configs_for(name, resolution)
    with torch.device("meta"):  # shapes only
        return (
            num_parameters(build_generator(family, dataclasses.replace(generator, **architecture))),
            num_parameters(
                build_discriminator(family, dataclasses.replace(discriminator, **architecture))
            ),
        )


def test_parameter_counts_are_those_of_the_networks():
    table = list(rows(read("docs/configs.md")))
    for architecture in ("orig", "skip", "resnet"):
        counts = [
            count(name, 1024, architecture=architecture) for name in ("stylegan2-e", "stylegan2-f")
        ]
        for index, network in enumerate(("generator", "discriminator")):
            shown = [f"{pair[index]:,}" for pair in counts]
            assert [f"{network} `{architecture}`", *shown] in table
    names = ["stylegan2-f", "stylegan2-e", "stylegan2-small"]
    for resolution in (32, 64, 128, 256, 512, 1024):
        pairs = [count(name, resolution) for name in names]
        shown = [f"{generator:,} / {discriminator:,}" for generator, discriminator in pairs]
        (row,) = [row for row in table if row[0] == str(resolution)]
        assert row[1:] in (shown, shown[:2], [*shown[:2], ""])


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])  # a row a preset
def test_the_memory_table_is_what_a_dry_run_states(every):
    table = [row for row in rows(read("docs/train.md")) if row[-1].endswith(" GB")]
    assert len(table) >= 6
    for name, resolution, batch, *sizes in table[::every]:
        for precision, size in zip(("fp32", "bf16"), sizes, strict=True):
            options = {"batch": int(batch), "precision": precision}
            config, _ = configure(name.strip("`"), options, resolution=int(resolution))
            stated = float(size.removesuffix(" GB"))
            # Two digits are shown, and releases of PyTorch keep a little more or less.
            assert estimate(config).total_bytes / 1e9 == pytest.approx(stated, rel=0.1, abs=0.06)


def test_the_page_on_architecture_is_short_and_names_files_that_are_there():
    text = read("docs/architecture.md")
    assert len(text.splitlines()) <= 120
    named = set(re.findall(r"`((?!tests/)(?:\w+/)?\w+\.py)`", text))
    assert len(named) > 20
    assert {name for name in named if not (SOURCE / name).is_file()} == set()


def test_the_page_on_architecture_has_the_layers_of_the_test():
    layers = runpy.run_path(str(ROOT / "tests" / "test_architecture.py"))["LAYERS"]
    (shown,) = (
        content for language, content in blocks(read("docs/architecture.md")) if language == "text"
    )
    named = {word for line in shown.splitlines() for word in line.partition("  ")[0].split()}
    assert named == {name for row in layers for name in row if name != "__main__"}


def test_the_page_on_papers_points_at_names_that_are_there():
    table = [row for row in rows(read("docs/papers.md")) if row[2].endswith(".py`")]
    assert len(table) > 30
    for row in table:
        path = row[2].strip("`")
        root = ROOT if path.startswith("examples/") else SOURCE
        tree = ast.parse((root / path).read_text(encoding="utf-8"))
        defined = {getattr(node, "name", None) for node in tree.body} | {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in getattr(node, "targets", [getattr(node, "target", None)])
            if isinstance(target, ast.Name)
        }
        names = re.findall(r"`(\w+)`", row[3])
        assert names
        assert set(names) - defined == set(), row[2]


def test_the_stages_of_figure_2_are_shown_as_they_stand_in_the_code():
    section = read("docs/papers.md").partition("## Figure 2 of StyleGAN2")[2].partition("\n## ")[0]
    shown = [content for language, content in blocks(section) if language == "python"]
    text = read("examples/stylegan2_figure2.py")
    there = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("stage_"):
            lines = text.splitlines()[node.body[1].lineno - 1 : node.end_lineno]  # no docstring
            body = textwrap.dedent("\n".join(lines))
            there.append(f"# {node.name}\n{body}\n")
    assert len(there) == 4
    assert shown == there


def deviations(stage: str, x: torch.Tensor, styles: torch.Tensor, weight: torch.Tensor) -> Any:
    """Return the deviation of each output channel before the activation, without the border."""
    shift = torch.zeros_like(styles)
    stages = runpy.run_path(str(ROOT / "examples" / "stylegan2_figure2.py"))["STAGES"]
    y = stages[stage](x, styles, shift, weight, torch.zeros([]))
    y = torch.where(y > 0, y, y / 0.2)[..., 1:-1, 1:-1]
    return y.var(dim=(2, 3), correction=0).sqrt()


def test_the_statistics_of_figure_2_are_as_stated():
    inputs = {"independent": lambda x: x, "three": lambda x: 3 * x}
    inputs["smoothed"] = lambda x: 5 * torch.nn.functional.avg_pool2d(x, 5, 1, 2)
    found: dict[tuple[str, str], list[torch.Tensor]] = {}
    for _ in range(5):
        x, styles = torch.randn(2, 16, 64, 64), 1 + 0.5 * torch.randn(2, 16)
        weight = torch.randn(16, 16, 3, 3)
        for name, change in inputs.items():
            for stage in "cd":
                spread = deviations(stage, change(x), styles, weight)
                found.setdefault((name, stage), []).append(spread)
    table = {row[0].partition(" ")[0].strip(","): row for row in rows(read("docs/papers.md"))}
    for (name, stage), spreads in found.items():
        stated = [float(end) for end in table[name]["cd".index(stage) + 1].split(" to ")]
        together = torch.cat(spreads)
        # 160 channels of other draws than the table's; their ends are less certain than all else
        assert [together.min().item(), together.max().item()] == pytest.approx(stated, rel=0.12)


def test_every_test_that_is_named_is_there():
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    named = set(
        re.findall(r"`(test_\w+)`", " ".join(path.read_text("utf-8") for path in DOCUMENTS))
    )
    assert len(named) >= 8
    assert named - defined == set()


def test_the_page_on_data_has_every_reason():
    table = read("docs/data.md").partition("## check")[2].partition("\n## ")[0]
    reasons = tuple(row[0].strip("`") for row in rows(table) if row[0].startswith("`"))
    raised = [
        ast.unparse(node.args[0]).strip("f'\"")
        for path in (SOURCE / "data").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "unusable"
    ]
    assert len(raised) > 5
    assert [reason for reason in raised if not reason.startswith(reasons)] == []
