#!/usr/bin/env bash
# darwin-py's export of grey masks merges classes, from sixteen classes on.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet darwin-py==3.6.3 numpy==2.4.6 pillow==12.3.0
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import csv
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

import darwin.datatypes as dt
from darwin.exporter.formats import semantic_mask_grey, semantic_mask_index


def export(count):
    """Export a square of each class; give the greys by class in the table and in the mask."""
    classes = [dt.AnnotationClass(f"class {number:02}", "polygon") for number in range(1, count + 1)]
    annotations = []
    for place, one in enumerate(classes):
        x, y = 10 * (place % 8), 10 * (place // 8)
        corners = [{"x": x + a, "y": y + b} for a, b in ((0, 0), (8, 0), (8, 8), (0, 8))]
        annotations.append(dt.make_polygon(one.name, corners))
    size = {"image_width": 80, "image_height": 10 * (count // 8 + 1), "remote_path": "/"}
    file = dt.AnnotationFile(
        path=Path("a.json"), filename="a.png", annotation_classes=set(classes), annotations=annotations, **size
    )
    masks = []
    for kind in (semantic_mask_index, semantic_mask_grey):
        out = Path(f"{kind.__name__.rpartition('.')[2]}_{count}")
        out.mkdir()
        kind.export([file], out)
        masks.append(np.asarray(Image.open(out / "masks" / "a.png")))
    with open(out / "class_mapping.csv", newline="") as table:
        listed = {row["class_name"]: int(row["class_color"]) for row in csv.DictReader(table)}
    held = {one.name: np.unique(masks[1][masks[0] == number]).tolist() for number, one in enumerate(classes, 1)}
    return listed, held


print("darwin-py", version("darwin-py"))
print("belief: class_mapping.csv, written beside the masks, says which grey is which class")
greys = {}
for count in (15, 16, 40):
    listed, held = export(count)
    greys[count] = len({grey for found in held.values() for grey in found})
    first = next((name for name in listed if name in held and held[name] != [listed[name]]), None)
    told = f"; {first} is {listed[first]} in the table, {held[first]} in the mask" if first else ""
    print(f"{count} classes: {len({listed[name] for name in held})} greys in the table, {greys[count]} in the mask{told}")
seen = greys == {15: 15, 16: 15, 40: 34}
print("seen: from sixteen classes on two or more have one grey in the mask, and can no longer be told apart"
      if seen else "behaviour has changed")
sys.exit(not seen)
PYTHON
