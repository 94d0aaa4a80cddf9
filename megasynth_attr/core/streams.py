"""Named random streams: the only source of randomness in a dataset.

A stream's key is a string that says what is drawn and how often. No draw of one factor can shift another's, and
worker count, order, crash and resume cannot matter, because no stream is ever continued from elsewhere.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

import numpy as np

STREAM_VERSION = "megasynth-attr streams 1"  # part of every key: raising it changes every dataset


class Scope(StrEnum):
    """How often a factor is drawn anew."""

    EXPERIMENT = "experiment"  # once; every dataset of the experiment shares it
    DATASET = "dataset"  # once per dataset; all its scenes share it to the bit
    SCENE = "scene"  # for every scene

    def sees(self, other: Scope) -> bool:
        """Return whether a factor of this scope may depend on a factor of scope ``other``.

        It may when ``other`` is drawn at most as often: then it cannot carry the other factor's variation.
        """
        order = list(Scope)
        return order.index(other) <= order.index(self)


def stream_key(
    root_seed: int,
    factor: str,
    scope: Scope,
    *,
    attribute: str,
    dataset_index: int,
    scene_index: int,
    variants: int = 1,
) -> str:
    """Return the canonical name of a stream; two calls that must agree produce the same string.

    ``variants`` > 1 with scope ``dataset`` gives each dataset that many draws, which its scenes take in turn.
    """
    parts = [STREAM_VERSION, f"seed={root_seed}", f"factor={factor}", f"scope={scope.value}"]
    if scope is not Scope.EXPERIMENT:
        parts += [f"attribute={attribute}", f"dataset={dataset_index}"]
    if scope is Scope.SCENE:
        parts.append(f"scene={scene_index}")
    elif variants > 1:
        parts.append(f"variant={scene_index % variants}")
    return "|".join(parts)


def stream(key: str) -> np.random.Generator:
    """Return a fresh PCG64 generator seeded by the SHA-256 of ``key``."""
    digest = hashlib.sha256(key.encode()).digest()
    words = np.frombuffer(digest, dtype="<u4").astype(np.uint64).tolist()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
