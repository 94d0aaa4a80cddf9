"""The structure of the project, read from its imports: which part depends on which, circles, and a picture of it.

    python tools/architecture.py                                          print it, and what breaks the rules
    python tools/architecture.py picture=docs/images/architecture.png     draw it

Every import counts, also those inside functions and those for type checkers only. ``tests/test_floors.py`` checks
``FLOORS``: the parts lie on floors, and imports only point down.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).resolve().parents[1]
GENERATOR, TRAINING = "megasynth_attr", "megasynth_train"
PACKAGES = {GENERATOR: ROOT / GENERATOR, TRAINING: ROOT / "train" / TRAINING}
# the parts, from the lowest floor up, and the parts that each may import
FLOORS: dict[str, set[str]] = {
    "core": set(),
    "scene": {"core"},
    "textures": {"core"},
    "blender": {"core", "scene"},
    "dataset": {"core", "scene"},
    "farm": {"core", "scene", "textures", "blender", "dataset"},
    "report": {"core", "scene", "dataset"},
    "pipeline": {"core", "scene", "textures", "blender", "dataset", "farm", "report"},
    TRAINING: {"core", "textures", "dataset"},
}
# packages of the training half that use its programs (the modules of its top folder); the others must not
ABOVE_PROGRAMS = {"compare", "experiment"}


def modules() -> dict[str, Path]:
    """Return the file of every module by its dotted name; a package is its ``__init__.py``."""
    found = {}
    for name, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = (name, *path.relative_to(folder).with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(known: Mapping[str, Path]) -> dict[str, Counter[str]]:
    """Return for every module of ``known`` which others it imports, and how many names it takes from each."""
    return {module: Counter(_imported(path, known)) for module, path in known.items()}


def _imported(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def part_of(module: str) -> str:
    """Return the part of the project a module belongs to: a folder of the generator, or the training half.

    Empty for the generator's package and its console command, which lie in no folder.
    """
    package, _, rest = module.partition(".")
    return TRAINING if package == TRAINING else rest.partition(".")[0].replace("__main__", "")


def circles(graph: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or indirectly."""
    names = list(graph)
    linked = [[other in graph[name] for other in names] for name in names]
    _, labels = connected_components(np.array(linked), connection="strong")
    groups = [[name for name, label in zip(names, labels, strict=True) if label == one] for one in set(labels)]
    return sorted(sorted(group) for group in groups if len(group) > 1 or group[0] in graph[group[0]])


def climbing(graph: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the imports that point upwards, or sideways where ``FLOORS`` does not allow it, as "module → module"."""
    return sorted(
        f"{module} → {other}"
        for module, others in graph.items()
        for other in others
        if part_of(module) and part_of(other) and part_of(other) not in FLOORS[part_of(module)] | {part_of(module)}
    )


def parts_using_programs(graph: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return where a package of the training half imports one of its programs, as "module → program"."""
    programs = {name for name in graph if name.startswith(f"{TRAINING}.") and name.count(".") == 1}
    programs -= {name.rpartition(".")[0] for name in graph}  # packages
    return sorted(
        f"{module} → {other}"
        for module, others in graph.items()
        for other in programs & set(others)
        if module.count(".") > 1 and module.split(".")[1] not in ABOVE_PROGRAMS
    )


def line_counts(known: Mapping[str, Path]) -> Counter[str]:
    """Return the lines of Python in each part."""
    counts: Counter[str] = Counter()
    for module, path in known.items():
        counts[part_of(module)] += len(path.read_text(encoding="utf-8").splitlines())
    return counts


def draw(path: Path, known: Mapping[str, Path], graph: Mapping[str, Mapping[str, int]]) -> None:
    """Draw the parts as boxes on their floors, wider for more lines, with an arrow to every part that one imports."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    rows = (("core",), ("scene", "textures"), ("blender", "dataset"), ("farm", "report", TRAINING), ("pipeline",))
    counts = line_counts(known)
    arrows: Counter[tuple[str, str]] = Counter()
    for module, others in graph.items():
        for other in others:
            if part_of(module) != part_of(other) and part_of(module) and part_of(other):
                arrows[part_of(module), part_of(other)] += 1
    figure, axes = plt.subplots(figsize=(10, 7), dpi=120)
    centre: dict[str, tuple[float, float]] = {}
    for floor, names in enumerate(rows):
        for place, name in enumerate(names):
            x, y = (place + 0.5) / len(names) * 10, floor * 1.6
            width = 1.5 + counts[name] / 15000  # the largest, at the edge, must fit
            centre[name] = (x, y)
            box = FancyBboxPatch((x - width / 2, y), width, 0.7, "round,pad=0.06", fc="#e8eef7", ec="#34527a", zorder=3)
            axes.add_patch(box)
            axes.text(x, y + 0.44, name, ha="center", va="center", fontsize=11, weight="bold", zorder=4)
            axes.text(x, y + 0.17, f"{counts[name]:,} lines", ha="center", va="center", fontsize=8, zorder=4)
    for (above, below), number in arrows.items():
        (x0, y0), (x1, y1) = centre[above], centre[below]
        bend = -0.12 * max(0, round((y0 - y1) / 1.6) - 1) * (1 if x0 >= x1 else -1)  # around the boxes in between
        style = {"color": "#7a8699", "lw": 0.5 + number**0.5 / 5, "mutation_scale": 10, "zorder": 2}
        axes.add_patch(
            FancyArrowPatch(
                (x0, y0), (x1, y1 + 0.76), arrowstyle="-|>", connectionstyle=f"arc3,rad={bend}", shrinkB=2, **style
            )
        )
    axes.set_xlim(-0.2, 10.2)
    axes.set_ylim(-0.4, 7.5)
    axes.axis("off")
    figure.savefig(path, bbox_inches="tight", metadata={"Software": None})


def main(words: list[str]) -> int:
    """Print the structure, or draw it; return 1 if it breaks its own rules."""
    known = modules()
    graph = imports(known)
    for word in words:
        if not word.startswith("picture="):
            print(f"{word}: write picture=FILE.png, or nothing", file=sys.stderr)
            return 2
        draw(Path(word.partition("=")[2]), known, graph)
    for name, count in line_counts(known).items():
        below = ", ".join(sorted(FLOORS.get(name, ()))) or "nothing"
        print(f"{name or '(package)':16} {count:6,} lines, depends on {below}")
    broken = [*climbing(graph), *parts_using_programs(graph)]
    for text in broken:
        print(f"points upwards: {text}")
    groups = circles(graph)
    for group in groups:
        print(f"circle: {', '.join(group)}")
    return 1 if broken or groups else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
