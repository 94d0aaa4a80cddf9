"""Dockerfile, workflow and Makefile: what they name exists, and shells can read it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
LINES = [line.split(maxsplit=1) for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]


def check_shell(command: str) -> None:
    """Fail unless ``command`` is shell, and every ``make`` in it names targets that exist."""
    subprocess.run(["sh", "-n", "-c", command], check=True)
    for targets in re.findall(r"\bmake ((?:[a-z-]+ ?)+)(?:$|[&;|])", command):
        subprocess.run(["make", "-n", *targets.split()], cwd=ROOT, check=True, capture_output=True)


def test_the_dockerfile() -> None:
    assert {word for word, _ in LINES} <= {"FROM", "RUN", "WORKDIR", "COPY", "CMD", "ENV"}
    stages = {rest.split()[2]: rest.split()[0] for word, rest in LINES if word == "FROM"}
    assert stages == {"base": "debian:12-slim", "cpu": "base", "cuda": "base"}
    for word, rest in LINES:
        if word == "RUN":
            check_shell(rest)
    assert ["CMD", '["make", "test"]'] in LINES
    assert '".[fast]"' in DOCKERFILE and "\nfast = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for command in re.findall(r"^#\s+docker run .*?megasynth-attr\S*(.*?)(?:#|$)", DOCKERFILE, re.MULTILINE):
        check_shell(command)


def test_the_workflow() -> None:
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    (job,) = yaml.safe_load(text)["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    for command in commands:
        check_shell(command)
    assert commands[-1] == "make test" and "secrets" not in text
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", step["uses"]) for step in job["steps"] if "uses" in step)
    assert job["container"] == "debian:12-slim"


def test_every_target_is_phony_or_a_file() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = makefile.partition(".PHONY:")[2].splitlines()[0].split()
    assert phony == re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
