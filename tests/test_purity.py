"""The structure's rules, read from the source: what may import what, and that nothing random hides."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "megasynth_attr"
SOURCES = sorted(PACKAGE.rglob("*.py"))
ALLOWED_NUMPY_RANDOM = {"Generator", "PCG64", "SeedSequence", "default_rng"}
ALLOWED_IN_SCENE = {"numpy", "scipy", "megasynth_attr"}
OPTIONAL = ("bpy", "mathutils", "torch", "matplotlib", "jinja2", "submitit", "datasets", "webdataset", "pycolmap")


def part(path):
    return path.relative_to(PACKAGE).parts[0]


def imported_modules(tree, top_level_only=False):
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {m.split(".")[0] for m in imported_modules(tree)}
    assert "torch" not in modules
    if part(path) != "blender":
        assert not modules & {"bpy", "mathutils"}
    if part(path) == "scene":
        assert modules <= ALLOWED_IN_SCENE | set(sys.stdlib_module_names)
        assert not modules & {"random", "uuid", "time"}
        inner = {m.split(".")[1] for m in imported_modules(tree) if m.startswith("megasynth_attr.")}
        assert inner <= {"scene", "errors", "streams"} | (
            {"config"} if path.name in ("sample.py", "isolation.py") else set()
        )


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_randomness_comes_from_named_streams(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert "random" not in set(imported_modules(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "random":
            owner = node.value.value
            if isinstance(owner, ast.Name) and owner.id in ("np", "numpy"):
                assert node.attr in ALLOWED_NUMPY_RANDOM, f"line {node.lineno}: np.random.{node.attr}"
    if part(path) == "scene":
        assert "default_rng" not in path.read_text(encoding="utf-8")


def test_the_package_imports_without_its_optional_parts():
    modules = [
        ".".join(("megasynth_attr", *p.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for p in SOURCES
        if part(p) != "blender" and p.name != "__main__.py"
    ]
    script = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OPTIONAL!r}:
            raise ImportError(f"{{name}} must not be imported here")
sys.meta_path.insert(0, Refuse())
import importlib
for module in {modules!r}:
    importlib.import_module(module)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
