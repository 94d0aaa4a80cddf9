"""The bases that a comparison trains in: the mined one, chosen attributes of it, and random ones of the same shapes.

::

    <out>/bases/texture+lighting.safetensors           chosen attributes' own bases, joined
    <out>/bases/random_<seed>.safetensors              random columns, as many as in the mined basis of all attributes
    <out>/bases/random_<seed>_texture+lighting.safetensors    as many as in the choice
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megasynth_attr.core.errors import DatasetError
from megasynth_train.subspace.basis import Basis, random_basis
from megasynth_train.subspace.basis_file import read_basis, write_basis
from megasynth_train.subspace.join import concatenate_bases, origin
from megasynth_train.training.loop import say

BASES = "bases"
WHOLE_BASIS = "all.safetensors"  # of megasynth_train.mine: all attributes side by side
SLICED = (
    "basis= is a single file in which the columns of all attributes are orthonormal together: those of an attribute "
    "span only what the attributes before it (order: {order}) do not, so choosing or leaving out attributes depends on "
    "that order; give the folder of megasynth_train.mine as basis= to use every attribute in full"
)
BLOCKS = (
    "the columns of all attributes are orthonormal together: the block of an attribute covers only directions that the "
    "attributes before it (order: {order}) do not span"
)


@dataclass(frozen=True)
class Bases:
    """What ``basis=`` names. ``folder``: that of megasynth_train.mine, None for a single file; ``made``: where
    bases derived from it are written."""

    whole: Basis
    file: Path
    folder: Path | None
    made: Path

    def choice(self, attributes: Sequence[str]) -> tuple[str, ...]:
        """Return the chosen attributes in the basis' order, empty for all of them."""
        chosen = tuple(name for name in self.whole.attributes if name in attributes)
        return () if chosen == self.whole.attributes else chosen

    def of(self, attributes: Sequence[str], *, write: bool = False) -> Basis:
        """Return the basis of these attributes (none: all).

        From a mining folder it joins their own files, each in full, unless that was done before; ``write`` saves it.
        From a single file it is their columns there. DatasetError if a file is missing, damaged or from another mining
        run.
        """
        chosen = self.choice(attributes)
        if not chosen:
            return self.whole
        if self.folder is None:
            return self.whole.select(chosen)
        own = [self._own(name) for name in chosen]
        options = self.whole.orthonormal, float(self.whole.record["settings"]["drop_below"])
        basis = _kept(self._chosen_file(chosen), origin(own, *options))
        if basis is None:
            basis = concatenate_bases(own, *options)
            if write:
                write_basis(self._chosen_file(chosen), basis)
        return basis

    def mined_file(self, attributes: Sequence[str]) -> Path:
        """Return the basis file to train these attributes in, written first if needed."""
        chosen = self.choice(attributes)
        if not chosen or self.folder is None:
            return self.file
        self.of(chosen, write=True)
        return self._chosen_file(chosen)

    def random_file(self, attributes: Sequence[str], seed: int) -> Path:
        """Return the file of a random basis with the shapes of ``of(attributes)``, written first if needed."""
        chosen, like = self.choice(attributes), self.of(attributes)
        file = self.made / f"random_{seed}{'_' * bool(chosen)}{'+'.join(chosen)}.safetensors"
        if _kept(file, {"like": like.sha256, "seed": seed}) is None:
            write_basis(file, random_basis(like, seed))
        return file

    def note(self, attributes: Sequence[str], mask: str) -> str:
        """Return what a reader must know about a method's use of the mined basis, or nothing."""
        chosen = self.choice(attributes)
        if not self.whole.orthonormal:
            return ""
        if chosen and self.folder is None:
            return SLICED.format(order=", ".join(self.whole.attributes))
        order = chosen or self.whole.attributes
        return BLOCKS.format(order=", ".join(order)) if mask == "block_diagonal" and len(order) > 1 else ""

    def _chosen_file(self, chosen: Sequence[str]) -> Path:
        return self.made / f"{'+'.join(chosen)}.safetensors"

    def _own(self, attribute: str) -> Basis:
        """Return an attribute's own basis, checked to be from the same mining run as the whole."""
        file = self.file.parent / f"{attribute}.safetensors"
        if not file.is_file():
            raise DatasetError(
                f"{file} does not exist, and a choice of attributes needs the file of each; give the complete folder "
                f"of megasynth_train.mine, or basis={self.file} to use columns of that file"
            )
        basis, whole = read_basis(file), self.whole
        same = basis.base == whole.base and basis.record.get("settings") == whole.record.get("settings")
        if basis.attributes != (attribute,) or not same:
            raise DatasetError(f"{file} is not from the same mining run as {self.file}; mine the cluster again")
        return basis


def open_bases(given: str, out: str) -> Bases:
    """Return what ``basis=`` names: a basis file, or a folder of megasynth_train.mine; reads the basis of all.

    DatasetError if it is missing, damaged or, in a folder, does not say how it was mined.
    """
    path = Path(given).resolve()
    folder = path if path.is_dir() else None
    file = path / WHOLE_BASIS if folder else path
    whole = read_basis(file)
    if folder and "drop_below" not in whole.record.get("settings", {}):
        raise DatasetError(f"{file} was not written by megasynth_train.mine; give it as basis={file}")
    return Bases(whole, file, folder, Path(out).resolve() / BASES)


def _kept(file: Path, made_of: Mapping[str, Any]) -> Basis | None:
    """Return a basis written earlier; None if it is missing, damaged or made of something else."""
    if not file.exists():
        return None
    try:
        basis = read_basis(file)
    except DatasetError as error:
        say(f"WARNING: {error}; it is written anew")
        return None
    return basis if all(basis.record.get(key) == value for key, value in made_of.items()) else None
