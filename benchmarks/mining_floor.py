"""The part of mining that nothing can avoid: read the adapters, thin QRs of their stacks, SVDs of their cores.

    python benchmarks/mining_floor.py CLUSTER WORKERS

By LAPACK's Householder QR and full SVDs, layer by layer in the same processes as the program. benchmarks/mining.py runs
it; it imports no more than those processes need. Prints the CPU seconds of the QRs and SVDs alone.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np

from megasynth_attr.core.parallel import for_each
from megasynth_attr.core.stop import StopRequest
from megasynth_train.subspace.mining import updates_by_attribute
from megasynth_train.subspace.updates import Cluster, open_cluster


@dataclass(frozen=True)
class Floor:
    """Does it for one layer and returns the CPU seconds of the QRs and SVDs."""

    cluster: Cluster

    def __call__(self, module: str) -> float:
        read = updates_by_attribute(self.cluster, module)
        started = time.process_time()
        for updates in read.values():
            sides = ([update.left for update in updates], [update.right for update in updates])
            triangles = [np.linalg.qr(np.hstack(factors))[1] for factors in sides]
            ends = np.cumsum([update.left.shape[1] for update in updates])[:-1]
            for left, right in zip(*(np.split(triangle, ends, axis=1) for triangle in triangles), strict=True):
                np.linalg.svd(left @ right.T)
        return time.process_time() - started


def main(folder: str, workers: str) -> None:
    """Do it for all layers of a cluster."""
    cluster, seconds = open_cluster(folder), {}
    with StopRequest() as stop:
        for_each(Floor(cluster), cluster.modules, int(workers), stop, seconds.__setitem__)
    print(f"QRs and SVDs alone: {sum(seconds.values()):.1f} s of CPU time")


if __name__ == "__main__":
    main(*sys.argv[1:])
