"""``python tests/golden/record.py [scenes] [depth] …``: write the recorded values anew; none named: all of them.

Only for a change that is meant to change what is generated: the tests beside this file hold all others to the values.
"""

from __future__ import annotations

import sys

import golden_depth
import golden_files
import golden_old
import golden_refusals
import golden_scenes
import golden_settings

RECORDERS = {
    "scenes": golden_scenes.record,
    "depth": golden_depth.record,
    "refusals": golden_refusals.record,
    "settings": golden_settings.record,
    "old_folders": golden_old.record,
}


def main(names: list[str]) -> None:
    for name in names or list(RECORDERS):
        golden_files.write(name, RECORDERS[name]())
        print(f"recorded {name}.json")


if __name__ == "__main__":
    main(sys.argv[1:])
