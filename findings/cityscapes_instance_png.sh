#!/usr/bin/env bash
# Cityscapes' own converter of polygons writes no instance ids any more with Pillow 13.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/convert.py" <<'PYTHON'
import json
import sys
from importlib.metadata import version
from pathlib import Path

from cityscapesscripts.preparation.json2instanceImg import json2instanceImg
from PIL import Image

source, target = Path(sys.argv[1], "page.json"), Path(sys.argv[1], "ids.png")
corners = [[4, 4], [14, 4], [14, 16], [4, 16]]
page = {"imgHeight": 24, "imgWidth": 40, "objects": [{"label": "car", "polygon": corners}]}
source.write_text(json.dumps(page))
try:
    json2instanceImg(str(source), str(target), "ids")
    picture = Image.open(target)
    seen = f"mode {picture.mode}, id {picture.getpixel((8, 8))}"
except OSError as error:
    seen = str(error)
print(f"cityscapesscripts {version('cityscapesscripts')}, Pillow {version('pillow')}: {seen}")
PYTHON
for pillow in 12.3.0 13.0.0; do
    python3 -m venv "$folder/$pillow"
    "$folder/$pillow/bin/pip" install --quiet cityscapesscripts==2.3.0 "pillow==$pillow"
    "$folder/$pillow/bin/python" "$folder/convert.py" "$folder"
done > "$folder/seen"
echo "belief: the converter that comes with the data set writes instance ids with any Pillow"
cat "$folder/seen"
if grep -q "12.3.0: mode I;16, id 26000" "$folder/seen" && grep -q "13.0.0: cannot write mode I as PNG" "$folder/seen"; then
    echo "seen: it writes 32-bit greys, which Pillow 12 stored as 16 bits in a PNG and Pillow 13 refuses"
else
    echo "behaviour has changed"
    exit 1
fi
