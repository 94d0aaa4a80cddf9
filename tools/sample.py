"""Gathers what `make sample` publishes in one folder: data with card and Croissant file, adapters, bases and pages.

python -m megasynth_attr.pipeline preset=sample
python tools/sample.py runs/sample runs/sample_published
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from megasynth_attr.core.errors import ConfigError, DatasetError, run_main
from megasynth_attr.core.pages.words import size_text
from megasynth_attr.core.temporary import replacing_folder
from megasynth_attr.dataset.export.__main__ import Options, export_dataset
from megasynth_attr.dataset.export.card import CARD
from megasynth_attr.dataset.export.target import MARKER
from megasynth_attr.dataset.reader import open_experiment

MOST_BYTES = 300_000_000
EXPERIMENT = "experiment"
LEFT_OUT = ("scenes", "index", "cache", "events", "tmp", "checkpoints", "layers", ".*")  # the data is in Parquet files
TEXTS = (".json", ".jsonl", ".md", ".html", ".yaml", ".csv")
MORE = f"""
## What else is here

| | |
|---|---|
| `{EXPERIMENT}/report/index.html` | pages about all of it, which work offline |
| `{EXPERIMENT}/training/cluster/*/adapter` | a LoRA adapter of `vggt-tiny` per dataset, as PEFT stores it |
| `{EXPERIMENT}/training/subspaces/*.safetensors` | the basis of each attribute, mined from the adapters |
| `{EXPERIMENT}/experiment.json` | all settings; `python -m megasynth_attr.pipeline preset=sample` makes it again |

Paths in these files are relative to this folder.
"""


def main(words: list[str]) -> None:
    """Write the folder; DatasetError, with nothing written, if it would not be small."""
    if len(words) != 2:
        raise ConfigError("name the experiment and the folder to write, e.g. runs/sample runs/sample_published")
    experiment, out = map(Path, words)
    with replacing_folder(out.resolve(), "the sample") as new:
        for dataset in open_experiment(experiment):
            export_dataset(Options(format="huggingface", dataset=str(dataset.path), out=str(new), license="cc0-1.0"))
        shutil.rmtree(new / MARKER)
        shutil.copytree(experiment, new / EXPERIMENT, ignore=shutil.ignore_patterns(*LEFT_OUT))
        with (new / CARD).open("a", encoding="utf-8") as card:
            card.write(MORE)
        remove_places(new / EXPERIMENT, {experiment.resolve(): EXPERIMENT, Path.cwd(): ".", Path.home(): "~"})
        size = sum(path.stat().st_size for path in new.rglob("*"))
        if size > MOST_BYTES:
            raise DatasetError(
                f"the sample has {size_text(size)}, more than {size_text(MOST_BYTES)}; render fewer scenes or frames"
            )
    print(f"{out}: {size_text(size)}")


def remove_places(folder: Path, places: Mapping[Path, str]) -> None:
    """Replace folders of this machine in all text files of ``folder``, then the checksums of the files that changed.

    ``places``: what stands for each folder, those inside others first.
    """
    names = [(str(place), short) for place, short in places.items() if place != Path(place.anchor)]
    words = {spelled.encode(): short.encode() for name, short in names for spelled in (name, json.dumps(name)[1:-1])}
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in TEXTS]
    while words:  # until no file holds the checksum of another that changed
        changed = {}
        for path in files:
            before = after = path.read_bytes()
            for old, new in words.items():
                after = after.replace(old, new)
            if after != before:
                path.write_bytes(after)
                changed[sha256(before).hexdigest().encode()] = sha256(after).hexdigest().encode()
        words = changed


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
