"""No file that we read may run code: the ways in are closed in the whole package."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "stylegan"
FORBIDDEN_MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
}
DOWNLOADER = Path("download.py")  # the only file that opens connections
TORCHSCRIPT = Path("perceptual", "torchscript.py")  # a file of another machine's programs
DISASSEMBLER = Path("interop", "restricted.py")  # pickletools decodes operations and runs none


def findings(text: str, name: Path = Path("file.py")) -> Iterator[str]:
    """Yield what a source file must not contain."""
    for node in ast.walk(ast.parse(text)):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)]
        for module in modules:
            if module.partition(".")[0] in FORBIDDEN_MODULES or module.startswith(
                ("torch._C", "pkg_resources")
            ):
                yield f"imports {module}"
            if module == "pickletools" and name != DISASSEMBLER:
                yield f"imports {module}"
        if isinstance(node, ast.Call):
            yield from call_findings(node)
            opens_url = ast.unparse(node.func).endswith(("urlopen", "build_opener", "fsspec.open"))
            if opens_url and name != DOWNLOADER:
                yield "opens a URL"
            if ast.unparse(node.func).endswith("jit.load") and name != TORCHSCRIPT:
                yield "runs TorchScript"


def call_findings(node: ast.Call) -> Iterator[str]:
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    called = ast.unparse(node.func)
    if called in ("eval", "exec", "compile", "__import__", "os.system"):
        yield f"calls {called}"
    if called.endswith("torch.load") and keywords.get("weights_only") != "True":
        yield "calls torch.load without weights_only=True"
    if "weights_only" in keywords and keywords["weights_only"] != "True":
        yield f"says weights_only={keywords['weights_only']}"
    if called.endswith((".extractall", ".extract")):  # an archive's names may lead anywhere
        yield f"calls {called}"
    if keywords.get("allow_pickle", "False") != "False":
        yield "says allow_pickle"
    if keywords.get("shell", "False") != "False":
        yield "says shell"


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "def f():\n    import pickle as p",
        "from pickle import loads",
        "import pickletools",
        "from torch._C import x",
        "import torch\ntorch.load(f)",
        "torch.load(f, weights_only=False)",
        "torch.load(f, weights_only=trusted)",
        "reader(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "eval('1')",
        "exec(text)",
        "subprocess.run(x, shell=True)",
        "archive.extractall(folder)",
        "urllib.request.urlopen(url)",
        "urllib.request.build_opener(handler)",
        "fsspec.open(url)",
        "torch.jit.load(path)",
    ],
)
def test_each_way_in_is_noticed(text):
    assert list(findings(text))


def test_honest_code_is_not_accused():
    text = "torch.load(f, weights_only=True)\nnp.load(f, allow_pickle=False)\nmodel.eval()"
    assert list(findings(text)) == []


def test_no_file_of_the_package_opens_a_way_in():
    paths = sorted(ROOT.rglob("*.py"))
    assert len(paths) > 10
    found = {
        str(path.relative_to(ROOT)): list(findings(path.read_text(), path.relative_to(ROOT)))
        for path in paths
    }
    assert {name: items for name, items in found.items() if items} == {}
