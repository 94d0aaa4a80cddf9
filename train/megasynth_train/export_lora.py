"""``python -m megasynth_train.export_lora``: write an adapter as a plain LoRA folder for any PEFT from 0.13 on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError, run_main
from megasynth_attr.core.fields import setting
from megasynth_train.adapters.subspace.export import export_folder

HELP = Help(
    usage="python -m megasynth_train.export_lora adapter=FOLDER out=FOLDER [basis=FILE]",
    explanation=(
        "Writes an adapter as a plain LoRA with the same update: one in a basis (lora_B = scale · A M, lora_A = Bᵀ),\n"
        "one of the released code's patched PEFT, or any LoRA, of this package or of PEFT alone. PEFT 0.13 and later\n"
        "loads it with PeftModel.from_pretrained(base, out), where this package is not installed. The export needs no\n"
        "base model; if the basis was moved since training, give basis=."
    ),
    examples=("python -m megasynth_train.export_lora adapter=runs/human/adapter out=runs/human_lora",),
)


@dataclass(frozen=True)
class ExportSettings:
    """What is exported, and where to."""

    adapter: str = setting("", "folder of a trained adapter: in a basis, or LoRA")
    out: str = setting("", "folder of the plain LoRA; it must not exist yet")
    basis: str = setting("", "file of the adapter's basis, if it was moved since training")


def main(words: list[str]) -> None:
    """Export as the command line says; raises as ``export_folder``."""
    settings = parse(ExportSettings, words, HELP)
    for key, value in (("adapter", settings.adapter), ("out", settings.out)):
        if not value:
            raise ConfigError(f"{key}= is missing: {HELP.usage}")
    out = Path(settings.out)
    export_folder(Path(settings.adapter), out, settings.basis)
    print(out)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
