"""Binary PLY files whose faces differ in their number of corners, which trimesh does not read."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float": "f4", "double": "f8", "float32": "f4", "float64": "f8",
}  # fmt: skip
_CORNERS = ("vertex_indices", "vertex_index")


def read_mixed_ply(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices (V×3 float64) and triangles (T×3 into them); faces with more corners are cut into fans.

    ValueError, KeyError or IndexError if the file is damaged or no binary PLY of vertices and faces.
    """
    order, elements, at = _header(content)
    vertices, faces = np.zeros((0, 3)), defaultdict(list)
    for element, count, properties in elements:
        kinds = {name: [np.dtype(order + _TYPES[word]) for word in words] for name, words in properties.items()}
        if all(len(kind) == 1 for kind in kinds.values()):
            table = np.frombuffer(content, [(name, kind) for name, (kind,) in kinds.items()], count, at)
            at += table.nbytes
            if element == "vertex":
                vertices = np.stack([table[axis].astype(np.float64) for axis in "xyz"], axis=1)
            continue
        for _ in range(count):
            for name, (kind, *of_list) in kinds.items():
                number = int(np.frombuffer(content, kind, 1, at)[0]) if of_list else 0
                if number < 0:
                    raise ValueError("a face has a negative number of corners")
                at += kind.itemsize
                if of_list:
                    if element == "face" and name in _CORNERS:
                        faces[number].append(np.frombuffer(content, of_list[0], number, at))
                    at += number * of_list[0].itemsize
    if at != len(content):
        raise ValueError("it is cut off, or longer than its header says")
    fans = [np.zeros((0, 3), np.int64)]
    for number, alike in sorted(faces.items()):
        corners = np.array(alike, np.int64)
        fans += [corners[:, [0, i, i + 1]] for i in range(1, number - 1)]
    return vertices, np.concatenate(fans)


def _header(content: bytes) -> tuple[str, list[tuple[str, int, dict[str, list[str]]]], int]:
    """Return the order of bytes, the elements (name, count, types of each property), and where the header ends."""
    last = content.index(b"end_header")
    order = ""
    elements: list[tuple[str, int, dict[str, list[str]]]] = []
    for line in content[:last].decode("ascii", "replace").splitlines():
        word, *rest = line.split() or [""]
        if word == "format":
            order = _ORDERS[rest[0]]
        elif word == "element":
            elements.append((rest[0], int(rest[1]), {}))
        elif word == "property":
            elements[-1][2][rest[-1]] = rest[1:-1] if rest[0] == "list" else rest[:-1]
    return order, elements, content.index(b"\n", last) + 1
