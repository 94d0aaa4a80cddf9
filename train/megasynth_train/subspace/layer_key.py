"""Where a layer is, read from its module's name."""

from __future__ import annotations

import re

from megasynth_train.subspace.analysis import LayerKey

_BLOCK = re.compile(r"(?:^|.*\.)(frame|global)_blocks\.(\d+)\.(?:.*\.)?([^.]+)")
_NUMBER = re.compile(r"\.(\d+)(?=\.|$)")


def layer_key(module: str) -> LayerKey:
    """Return attention type, kind and depth of ``aggregator.<frame|global>_blocks.<depth>.….<kind>``.

    Any other module has the attention ``other``, the first number in its name as depth (0 without), and its last name.
    """
    if found := _BLOCK.fullmatch(module):
        return LayerKey(module, found[1], found[3], int(found[2]))
    number = _NUMBER.search(module)
    return LayerKey(module, "other", module.rpartition(".")[2], int(number[1]) if number else 0)
