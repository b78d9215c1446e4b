"""A picture of a page that recbole-dsl report has made; needs Chromium and Pillow.

python docs/screenshot.py saved/picture/BPR-....html results/report.png
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

_SIZE = 1440, 1180
# as many as a page has, with the shades at the edges of letters
_COLOURS = 64


def picture(page: Path, file: Path) -> None:
    """Write the first screen of ``page`` to ``file``, a PNG with few colours."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder, "shot.png")
        words = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        words += ["--disable-background-networking", f"--user-data-dir={folder}/profile"]
        words += [f"--window-size={_SIZE[0]},{_SIZE[1]}", f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run(words, check=True, capture_output=True)
        with Image.open(shot) as image:
            image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)


if __name__ == "__main__":
    picture(*map(Path, sys.argv[1:]))
