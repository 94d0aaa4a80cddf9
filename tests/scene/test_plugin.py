"""A new factor costs one module and one preset: the documentation's examples, word for word, on a real Blender."""

import dataclasses
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.dataset.reader import open_dataset
from megasynth_attr.dataset.verify import verify_dataset
from megasynth_attr.scene import factor as factor_module
from megasynth_attr.scene.config import resolve
from megasynth_attr.scene.factor import load_plugins, loaded_plugins, registered
from megasynth_attr.scene.isolation import reference_of
from megasynth_attr.scene.spec import diff

ROOT = Path(__file__).parents[2]
SIZE = ["render.width_px=42", "render.height_px=42", "quality=draft", "texture.bank_size_px=16", "isolation.scenes=2"]
FEW = ["geometry.large_count=[1,1]", "geometry.small_count=[0,0]", "texture.pool_size=3", "texture.slot_count=8"]
SHORT = ["scenes=0-1", "frames=2", "stages=generate,verify"]
LAYERS = ["write.normal=true", "write.instance=true", "write.position=true"]
EXAMPLES = {"fog": ("fog.py", "foggy.yaml"), "film": ("film.py", "filmed.yaml")}


def write_examples(folder):
    """Write the documentation's code blocks to files, as their first lines say."""
    text = (ROOT / "docs" / "adding-a-factor.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:python|yaml)\n(# ([\w.]+).*?)```", text, re.DOTALL)
    assert sorted(name for _, name in blocks) == sorted(name for names in EXAMPLES.values() for name in names)
    for block, name in blocks:
        (folder / name).write_text(block, encoding="utf-8")
    return text


@contextmanager
def plugins_forgotten():
    """Context manager: the factors of plugins loaded inside are unknown again afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factor_module, "_plugin_factors", dict(factor_module._plugin_factors))
        yield


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    write_examples(folder)
    return folder


@pytest.fixture(scope="module")
def rendered(examples):
    """Run the documentation's commands, only smaller; return what they print."""
    if os.environ.get("CI") != "true" and importlib.util.find_spec("bpy") is None:
        pytest.skip("the bpy module is not installed")
    commands = re.findall(r"^python -m megasynth_attr.pipeline (preset=f.*)$", write_examples(examples), re.MULTILINE)
    assert len(commands) == len(EXAMPLES)
    done = [run(examples, *line.split(), *SIZE, *FEW, *LAYERS, *SHORT) for line in commands]
    return "\n".join(part.stdout for part in done)


def run(folder, *words):
    command = [sys.executable, "-m", "megasynth_attr.pipeline", *words]
    path = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | path)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def foggy(examples):
    return [f"preset={examples / 'foggy.yaml'}", f"plugins=[{examples / 'fog.py'}]"]


def test_help_shows_the_new_keys(examples):
    assert "fog.density" in run(examples, "--help", "preset=foggy.yaml", "plugins=[fog.py]").stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_only_the_new_factor_varies_and_only_in_the_picture(examples, rendered, name):
    load_plugins([str(examples / EXAMPLES[name][0])])
    dataset = open_dataset(examples / "runs" / Path(EXAMPLES[name][1]).stem / f"{name}_00")
    first, second = dataset.scenes
    assert diff(first.scene, second.scene) == {name}
    for a, b in zip(first.views, second.views, strict=True):
        for layer in ("depth_z", "normal", "instance", "position"):
            assert getattr(a, layer).tobytes() == getattr(b, layer).tobytes(), layer
        assert np.abs(a.rgb.astype(int) - b.rgb).max() > 8


@pytest.mark.parametrize("name", EXAMPLES)
def test_verification_and_isolation_know_the_new_factor(examples, rendered, name):
    dataset = open_dataset(examples / "runs" / Path(EXAMPLES[name][1]).stem / f"{name}_00")
    report = json.loads((dataset.path / "verify.json").read_text())
    assert report["passed"] and report["depth_groups"] == 1 and report["depth_compared"] == {name: 1}
    assert f"differing in {name}" in rendered
    relative = dataset.record["isolation"]["relative"]
    assert relative.pop(name) > 0
    assert set(relative.values()) == {0.0} and len(relative) == 4


def test_without_its_plugin_a_dataset_is_read_and_verified_as_far_as_possible(examples, rendered, tmp_path):
    folder = tmp_path / "fog_00"
    shutil.copytree(examples / "runs" / "foggy" / "fog_00", folder)
    scene = open_dataset(folder).scenes[0].scene
    assert scene.factors["fog"] == {
        "density": scene.factors["fog"]["density"],
        "height": scene.factors["fog"]["height"],
    }
    report = verify_dataset(folder, progress=False)
    (finding,) = [f for f in report.findings if f.severity == "warning" and f.check == "equal depth"]
    source = hashlib.sha256((examples / "fog.py").read_bytes()).hexdigest()
    assert finding.where == "fog" and f"made with fog, SHA-256 {source[:12]}: if you trust" in finding.message
    assert report.passed and report.depth_groups == 0 and "nothing compared" in report.table()


def test_another_plugin_of_that_name_is_refused(examples, rendered, tmp_path):
    other = tmp_path / "fog.py"
    other.write_text((examples / "fog.py").read_text() + "\n# another one\n")
    load_plugins([str(other)])
    with pytest.raises(ConfigError, match=r"is not the plugin with which the factor 'fog' of .* was made \(fog, SHA"):
        open_dataset(examples / "runs" / "foggy" / "fog_00")


def test_a_broken_promise_is_found(examples, rendered, tmp_path):
    """Depth of another scene under the promise of fog: what a factor would do that moves a surface after all."""
    from megasynth_attr.core.files import json_bytes, sha256_of
    from megasynth_attr.dataset.images import read_depth, write_depth

    folder = tmp_path / "fog_00"
    shutil.copytree(examples / "runs" / "foggy" / "fog_00", folder)
    load_plugins([str(examples / "fog.py")])
    scene = open_dataset(folder).scenes[1].path
    depth = read_depth(scene / "depth" / "0001.exr")
    write_depth(scene / "depth" / "0001.exr", np.where(depth > 0, np.nextafter(depth, np.float32(9)), depth), "float32")
    checksums = json.loads((scene / "checksums.json").read_text())
    for name in checksums["files"]:
        checksums["files"][name] = {"bytes": (scene / name).stat().st_size, "sha256": sha256_of(scene / name)}
    (scene / "checksums.json").write_bytes(json_bytes(checksums))
    report = verify_dataset(folder, progress=False)
    (finding,) = [f for f in report.findings if f.severity == "error"]
    assert (finding.check, finding.where) == ("equal depth", "000001") and "first in frame 1" in finding.message


def test_a_plugin_at_its_defaults_is_no_part_of_a_dataset(examples):
    plain = resolve(["preset=texture"]).members[0]
    words = ["preset=texture", f"plugins=[{examples / 'fog.py'}]"]
    loaded = resolve([*words, "fog.scope=dataset", "fog.variants=3"]).members[0]
    assert "fog" not in loaded.factors and loaded.fingerprint() == plain.fingerprint()
    assert resolve([*words, "fog.density=[0,0.1]"]).members[0].fingerprint() != plain.fingerprint()
    assert resolve(["preset=texture"]).members[0].fingerprint() == plain.fingerprint()  # fog is still loaded


def test_the_reference_varies_the_new_factor_over_the_ranges_given(examples):
    config = resolve([*foggy(examples), "fog.scope=dataset", "fog.variants=2"]).members[0]
    reference = reference_of(config)
    assert reference.factors["fog"] == dataclasses.replace(config.factors["fog"], scope="scene", variants=1)
    assert reference.attribute == "everything" and "fog" not in resolve(["preset=everything"]).members[0].factors


def test_the_attribute_itself_is_not_off(examples):
    with pytest.raises(ConfigError, match=r"attribute=fog: the factor of that name is off"):
        resolve([*foggy(examples), "fog.density=[0,0]"])


def test_plugins_are_forgotten(examples):
    before = set(registered())
    with plugins_forgotten():
        load_plugins([str(examples / "fog.py")])
        assert set(registered()) == before | {"fog"}
    assert set(registered()) == before
    assert load_plugins([str(examples / "fog.py")])["fog"].factors == ("fog",)  # and can be loaded again
    assert loaded_plugins() == (str(examples / "fog.py"),)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_of_this_name", "does not import: ModuleNotFoundError"),
        ("FACTOR = 3", "declares no factor"),
        ("from megasynth_attr.scene.factor import register", "does not import: ImportError"),
    ],
)
def test_what_is_no_plugin_is_refused(tmp_path, source, message):
    file = tmp_path / "bad.py"
    file.write_text(source)
    with pytest.raises(ConfigError, match=message):
        load_plugins([str(file)])


def test_a_name_is_taken_once(examples, tmp_path):
    other = tmp_path / "fog.py"
    other.write_text((examples / "fog.py").read_text() + "\n# another one\n")
    load_plugins([str(examples / "fog.py")])
    with pytest.raises(ConfigError, match="declares a factor 'fog', which exists"):
        load_plugins([str(other)])


def test_settings_of_any_factor_begin_alike():
    for factor in registered().values():
        assert [field.name for field in dataclasses.fields(factor.settings)][:2] == ["scope", "variants"], factor.name
