"""A Blender binary finds this project's packages, or says in one line what to do and exits with 4."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from blender_runtime import NEWEST, Runtime, environment

BOOTSTRAP = Path(__file__).resolve().parents[2] / "megasynth_attr" / "blender" / "bootstrap.py"
HIDE = "sys.path[:] = [p for p in sys.path if 'site-packages' not in p]; bootstrap.CHECKOUT = bootstrap.Path({empty!r})"
SCRIPT = """
import sys, importlib.util
spec = importlib.util.spec_from_file_location("bootstrap", {bootstrap!r})
bootstrap = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bootstrap)
{before}
bootstrap.find_packages()
import scipy.spatial, yaml, megasynth_attr
print("FOUND", megasynth_attr.__file__)
"""


def run(runtime: Runtime, folder: Path, before: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT.format(bootstrap=str(BOOTSTRAP), before=before))
    env = {k: v for k, v in (environment() | changes).items() if v}
    return subprocess.run(
        [*runtime.command, str(script)], env=env, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def empty(tmp_path: Path) -> str:
    (tmp_path / "empty").mkdir()
    return str(tmp_path / "empty")


def test_an_active_environment_is_found(runtime: Runtime, tmp_path: Path) -> None:
    done = run(runtime, tmp_path)
    assert done.returncode == 0 and "FOUND" in done.stdout, done.stderr


def test_pythonpath_is_found(runtime: Runtime, tmp_path: Path) -> None:
    prefix = NEWEST.parents[1] if str(NEWEST) in runtime.command else Path(sys.prefix)
    (packages,) = prefix.glob("lib/python3.*/site-packages")
    done = run(runtime, tmp_path, VIRTUAL_ENV="", PYTHONPATH=str(packages))
    assert done.returncode == 0 and "FOUND" in done.stdout, done.stderr


def test_without_packages_it_says_what_to_do(runtime: Runtime, tmp_path: Path, empty: str) -> None:
    """The script hides the module's own packages, so that all Blenders start without."""
    done = run(runtime, tmp_path, HIDE.format(empty=empty), VIRTUAL_ENV="")
    assert done.returncode == 4
    (line,) = [entry for entry in done.stderr.splitlines() if "EnvironmentProblem" in entry]
    assert "tqdm" in line and "-m venv" in line


def test_an_environment_of_another_python_is_named(runtime: Runtime, tmp_path: Path, empty: str) -> None:
    other = tmp_path / "other"
    (other / "lib" / "python3.99" / "site-packages").mkdir(parents=True)
    done = run(runtime, tmp_path, HIDE.format(empty=empty), VIRTUAL_ENV=str(other))
    assert done.returncode == 4 and "but for python3.99" in done.stderr


def test_a_package_that_does_not_load_is_named(runtime: Runtime, tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "tqdm"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('built for something else')")
    done = run(runtime, tmp_path, f"sys.path[:0] = [{str(broken.parent)!r}, str(bootstrap.CHECKOUT)]")
    assert done.returncode == 4 and "built for something else" in done.stderr
