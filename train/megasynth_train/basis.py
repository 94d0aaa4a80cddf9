"""``python -m megasynth_train.basis``: inspect, randomise, select from and convert basis files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError, run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.core.pages.words import table_text
from megasynth_attr.core.run_folder import check_new
from megasynth_train.adapters.inject import base_of
from megasynth_train.adapters.subspace.opening import check_layers
from megasynth_train.subspace.analysis import layer_key
from megasynth_train.subspace.basis import Basis, random_basis
from megasynth_train.subspace.basis_file import read_basis, write_basis
from megasynth_train.subspace.paper_scheme import export_paper, import_paper
from megasynth_train.training.base_model import base_model
from megasynth_train.training.settings import ModelSettings

HELP = Help(
    usage="python -m megasynth_train.basis show|random|select|from_paper|to_paper=FILE [out=FILE] [key=value ...]",
    explanation=(
        "Inspects, selects from and converts basis files as written by python -m megasynth_train.mine. Give one\n"
        "action with a file; all but show= write out=, which must not exist yet. from_paper= also takes the base\n"
        "model (model=, checkpoint=) and binds the basis to it; it is then refused for any other model."
    ),
    examples=(
        "python -m megasynth_train.basis show=subspaces/all.safetensors",
        "python -m megasynth_train.basis select=subspaces/all.safetensors attributes=[texture] out=texture.safetensors",
        "python -m megasynth_train.basis random=subspaces/all.safetensors seed=1 out=random.safetensors",
        "python -m megasynth_train.basis from_paper=space.safetensors checkpoint=facebook/VGGT-1B out=b.safetensors",
    ),
)


@dataclass(frozen=True)
class BasisSettings:
    """What to do with a basis file; give exactly one of the first five."""

    show: str = setting("", "print what the basis is: attributes, layers, dimensions, origin")
    random: str = setting("", "write a random basis of the same shapes and columns, as a control")
    select: str = setting("", "write a basis with only the columns of attributes=")
    from_paper: str = setting(
        "", "write a basis from a file with the released code's keys (frame_blocks.attn.qkv.0.A …)"
    )
    to_paper: str = setting("", "write a file with the released code's keys")
    out: str = setting("", "file to write; must not exist")
    attributes: tuple[str, ...] = setting(
        (), "select: attributes to keep; from_paper: names of equal blocks of the columns, in order (empty: one block)"
    )
    seed: int = setting(0, "random: seed of the directions", minimum=0)
    orthonormalise: bool = setting(
        False, "from_paper: orthonormalise the columns; their span stays, but an M trained on them no longer fits"
    )
    model: ModelSettings = field(default_factory=ModelSettings)  # from_paper: what the basis is bound to


def table(basis: Basis) -> str:
    """Return what ``show=`` prints: facts, then one line per kind of layer with sizes and dimensions."""
    record, base = basis.record, basis.base
    empty = sum(module not in basis.layers for module in record.get("ranks", {}))
    facts = {
        "attributes": ", ".join(basis.attributes),
        "layers": f"{len(basis.layers)}" + (f", {empty} more have no dimensions" if empty else ""),
        "columns": "orthonormal" if basis.orthonormal else "orthonormal within each attribute",
        "extractor": record.get("extractor", "not recorded"),
        "base": base.get("size") or base.get("base_model_name_or_path") or "not recorded",
        "base SHA-256": base.get("weights_sha256", "not recorded"),
        "basis SHA-256": basis.sha256,
        "trained in M": f"{sum(layer.dimension**2 for layer in basis.layers.values()):,} parameters",
    }
    width = max(map(len, facts)) + 2
    lines = [f"{name + ':':{width}}{value}" for name, value in facts.items()]
    rows = [("attention", "kind", "layers", "outputs", "inputs", "D", *basis.attributes), *_rows(basis)]
    return "\n".join([*lines, "", table_text(rows)])


def _rows(basis: Basis) -> list[tuple[str, ...]]:
    groups: dict[tuple[str, str, int, int], list[str]] = {}
    for module, layer in basis.layers.items():
        key = layer_key(module)
        groups.setdefault((key.attention, key.kind, len(layer.left), len(layer.right)), []).append(module)
    rows = []
    for (attention, kind, outputs, inputs), modules in groups.items():
        of_attributes = []
        for name in basis.attributes:
            spans = [basis.columns[module].get(name, (0, 0)) for module in modules]
            of_attributes.append(_range(end - start for start, end in spans))
        dimensions = _range(map(basis.dimension, modules))
        rows.append((attention, kind, str(len(modules)), str(outputs), str(inputs), dimensions, *of_attributes))
    return rows


def _range(numbers: Iterable[int]) -> str:
    found = sorted(set(numbers))
    return str(found[0]) if len(found) == 1 else f"{found[0]}–{found[-1]}"


def _show(settings: BasisSettings) -> None:
    print(table(read_basis(settings.show)))


def _random(settings: BasisSettings) -> None:
    write_basis(_new_file(settings), random_basis(read_basis(settings.random), settings.seed))


def _select(settings: BasisSettings) -> None:
    out, chosen = _new_file(settings), read_basis(settings.select).select(settings.attributes)
    if not chosen.layers:
        raise ConfigError(f"{', '.join(chosen.attributes)} has no dimensions in any layer of {settings.select}")
    write_basis(out, chosen)


def _from_paper(settings: BasisSettings) -> None:
    names = settings.attributes or ("all",)
    out, base, model = _new_file(settings), {}, None
    if settings.model != ModelSettings():
        model = base_model(settings.model, [])
        base = to_plain(base_of(model))
    basis = import_paper(settings.from_paper, attributes=names, base=base, orthonormalise=settings.orthonormalise)
    if model is not None:
        check_layers(basis, model)
    write_basis(out, basis)
    if not base:
        print(
            f"WARNING: {out} is not bound to a base model: every model with fitting layer names and shapes accepts it, "
            "but it is meaningful only for the one it was mined from; name that one, e.g. "
            "checkpoint=facebook/VGGT-1B",
            file=sys.stderr,
        )


def _to_paper(settings: BasisSettings) -> None:
    export_paper(read_basis(settings.to_paper), _new_file(settings))


ACTIONS: dict[str, Callable[[BasisSettings], None]] = {
    "show": _show,
    "random": _random,
    "select": _select,
    "from_paper": _from_paper,
    "to_paper": _to_paper,
}
# keys that only some actions use
USES = {
    "out": set(ACTIONS) - {"show"},
    "attributes": {"select", "from_paper"},
    "seed": {"random"},
    "orthonormalise": {"from_paper"},
    "model": {"from_paper"},
}


def run(settings: BasisSettings) -> None:
    """Run the action that is given; ConfigError if there is not exactly one, or a key does not apply to it."""
    chosen = [name for name in ACTIONS if getattr(settings, name)]
    if len(chosen) != 1:
        what = f"{' and '.join(chosen)} are given" if chosen else "no action is given"
        raise ConfigError(f"{what}: give exactly one of {', '.join(f'{name}=' for name in ACTIONS)} with a file")
    defaults = BasisSettings()
    for key, users in USES.items():
        if chosen[0] not in users and getattr(settings, key) != getattr(defaults, key):
            raise ConfigError(f"{key}= does not apply to {chosen[0]}=, only to {', '.join(sorted(users))}")
    ACTIONS[chosen[0]](settings)


def _new_file(settings: BasisSettings) -> Path:
    if not settings.out:
        raise ConfigError("out= is missing: name the file to write, e.g. out=runs/random.safetensors")
    out = Path(settings.out)
    check_new(out)
    return out


def main(words: list[str]) -> None:
    """Run the action that the command line names."""
    run(parse(BasisSettings, words, HELP))


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
