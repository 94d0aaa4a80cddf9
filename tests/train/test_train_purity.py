"""The training half's rules, read from the source: it shares files with the generator, and nothing else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "train" / "megasynth_train"
SOURCES = sorted(PACKAGE.rglob("*.py"))
# reading datasets, and what every program of the project needs: errors, keys, files, signals
GENERATOR_PARTS = {
    "megasynth_attr",
    "megasynth_attr.dataset",
    "megasynth_attr.core.files",
    "megasynth_attr.dataset.images",
    "megasynth_attr.dataset.paths",
    "megasynth_attr.dataset.reader",
    "megasynth_attr.core.temporary",
    "megasynth_attr.core.errors",
    "megasynth_attr.core.exr",
    "megasynth_attr.core.lock",
    "megasynth_attr.core.pages",
    "megasynth_attr.core.pages.words",
    "megasynth_attr.core.stop",
    "megasynth_attr.core.command.keys",
    "megasynth_attr.core.command.layers",
    "megasynth_attr.core.command.program",
    "megasynth_attr.core.command.settings",
    "megasynth_attr.core.command.words",
    "megasynth_attr.report",
    "megasynth_attr.core.pages.chapters",
    "megasynth_attr.core.pages.template",
    "megasynth_attr.core.resources",
    "megasynth_attr.core.codec",
    "megasynth_attr.core.fields",
    "megasynth_attr.core.selection",
    "megasynth_attr.core.streams",
}
GLOBAL_RANDOMNESS = {"seed", "rand", "randn", "random", "randint", "choice", "shuffle", "permutation", "normal"}


def names_of(node):
    """Yield the modules an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        yield from names_of(node)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports(path):
    modules = set(imported(path))
    roots = {m.split(".")[0] for m in modules}
    assert not roots & {"bpy", "mathutils", "random", "cv2", "open3d", "lightning", "torchvision"}
    assert {m for m in modules if m.startswith("megasynth_attr")} <= GENERATOR_PARTS
    if path.parent.name == "evaluate" and path.name in ("umeyama.py", "clouds.py", "depth.py", "cameras.py"):
        assert not roots & {"torch", "matplotlib"}  # metrics: NumPy and SciPy only


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_global_random_state_of_numpy(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "random":
            owner = node.value.value
            if isinstance(owner, ast.Name) and owner.id in ("np", "numpy"):
                assert node.attr not in GLOBAL_RANDOMNESS, f"line {node.lineno}: np.random.{node.attr}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_optional_packages_are_imported_where_they_are_used(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_once = {name.split(".")[0] for node in tree.body for name in names_of(node)}
    assert not at_once & {"matplotlib", "jinja2", "tensorboard"}


def test_imports_without_blender():
    modules = [
        ".".join(("megasynth_train", *p.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for p in SOURCES
        if p.name != "__main__.py"
    ]
    script = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("bpy", "mathutils", "open3d", "submitit"):
            raise ImportError(f"{{name}} must not be imported here")
sys.meta_path.insert(0, Refuse())
import importlib
for module in {modules!r}:
    importlib.import_module(module)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
