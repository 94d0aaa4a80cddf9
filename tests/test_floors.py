"""The structure's rules, read from the source: what may import what, and that nothing random hides."""

import ast
import functools
import subprocess
import sys

import pytest
from architecture import (
    FLOORS,
    GENERATOR,
    PACKAGES,
    TRAINING,
    circles,
    climbing,
    imports,
    modules,
    part_of,
    parts_using_programs,
)

MODULES = modules()
GRAPH = imports(MODULES)
GENERATORS = [name for name in MODULES if name.startswith(GENERATOR)]
TRAININGS = [name for name in MODULES if name.startswith(TRAINING)]
PARTS_OF_SCENES = {"numpy", "scipy", GENERATOR}  # besides the standard library
READS_MESHES = f"{GENERATOR}.scene.scans"  # the only one that uses trimesh, where meshes are rendered
NEVER_IN_TRAINING = {"bpy", "mathutils", "random", "cv2", "open3d", "lightning", "torchvision"}
METRICS = {f"{TRAINING}.evaluate.{name}" for name in ("umeyama", "clouds", "depth", "cameras")}
WITHOUT_SEED = {"seed", "rand", "randn", "random", "randint", "choice", "shuffle", "permutation", "normal"}
WITH_SEED = {"Generator", "PCG64", "SeedSequence", "default_rng"}
LAZY = {"matplotlib", "jinja2", "tensorboard"}
OPTIONAL = ("bpy", "mathutils", "torch", "matplotlib", "jinja2", "datasets", "webdataset", "pycolmap", "trimesh")


@functools.cache
def tree(module):
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def roots(nodes):
    """Yield the first word of every import among ``nodes``."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def numpy_random(module):
    """Yield the names taken from ``np.random``."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "random":
            owner = node.value.value
            if isinstance(owner, ast.Name) and owner.id in ("np", "numpy"):
                yield node.attr


def test_imports_point_down():
    assert climbing(GRAPH) == []


def test_no_circles():
    assert circles(GRAPH) == []


def test_packages_do_not_use_programs():
    assert parts_using_programs(GRAPH) == []


def test_every_part_has_its_floor():
    assert {part_of(module) for module in MODULES} - {""} == set(FLOORS)


def test_the_generator_does_not_know_the_training_half():
    named = [module for module in GENERATORS if TRAINING in MODULES[module].read_text(encoding="utf-8")]
    assert named == []


def test_circles_and_climbing_are_found(tmp_path):
    folder = tmp_path / GENERATOR
    folder.mkdir()
    known = {}
    for name, text in {
        "core.a": "def f():\n    from megasynth_attr.scene import b",
        "scene": "",
        "scene.b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from megasynth_attr.core.a import f",
        "scene.c": "import megasynth_attr.scene.b",
    }.items():
        known[f"{GENERATOR}.{name}"] = folder / f"{name}.py"
        known[f"{GENERATOR}.{name}"].write_text(text)
    graph = imports(known)
    assert circles(graph) == [[f"{GENERATOR}.core.a", f"{GENERATOR}.scene.b"]]
    assert climbing(graph) == [f"{GENERATOR}.core.a → {GENERATOR}.scene.b"]


@pytest.mark.parametrize("module", GENERATORS)
def test_what_the_generator_imports(module):
    used = set(roots(ast.walk(tree(module))))
    assert "torch" not in used
    if part_of(module) != "blender":
        assert not used & {"bpy", "mathutils"}
    if part_of(module) == "scene":
        assert used - ({"trimesh"} if module == READS_MESHES else set()) <= PARTS_OF_SCENES | set(
            sys.stdlib_module_names
        )
        assert not used & {"random", "uuid", "time"}


@pytest.mark.parametrize("module", GENERATORS)
def test_randomness_comes_from_named_streams(module):
    assert "random" not in set(roots(ast.walk(tree(module))))
    assert set(numpy_random(module)) <= WITH_SEED
    if part_of(module) == "scene":
        assert "default_rng" not in MODULES[module].read_text(encoding="utf-8")


@pytest.mark.parametrize("module", TRAININGS)
def test_what_the_training_half_imports(module):
    used = set(roots(ast.walk(tree(module))))
    assert not used & NEVER_IN_TRAINING
    assert not set(roots(tree(module).body)) & LAZY  # imported where they are used
    assert not set(numpy_random(module)) & WITHOUT_SEED
    if module in METRICS:
        assert not used & {"torch", "matplotlib"}  # NumPy and SciPy only


@pytest.mark.parametrize(("package", "refused"), [(GENERATOR, OPTIONAL), (TRAINING, ("bpy", "mathutils", "open3d"))])
def test_the_packages_import_without_their_optional_parts(package, refused):
    names = [m for m in MODULES if m.startswith(package) and part_of(m) != "blender" and not m.endswith("__main__")]
    script = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {refused!r}:
            raise ImportError(f"{{name}} must not be imported here")
sys.meta_path.insert(0, Refuse())
import importlib
for module in {names!r}:
    importlib.import_module(module)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_packages_are_where_the_rules_look():
    assert all(folder.is_dir() for folder in PACKAGES.values())
    assert len(GENERATORS) > 100 and len(TRAININGS) > 100
