#!/usr/bin/env python3
"""Writes pillow_colours.txt.gz: what Pillow makes of the corpora's pictures, at 16 places of each.

    tests/data/golden/make_pillow_colours.py FOLDER [OUT]

FOLDER holds the unpacked corpora. A line for each picture that Pillow decodes to 8-bit colours: its path, width and height when it is upright, and the colours at
x = (2 i + 1) width / 8, y = (2 j + 1) height / 8 (rounded down; j, then i, from 0 to 3) as hexadecimal digits. Of GIF and WebP the first picture. Modes of more
than 8 bits (I, I;16, F) are left out: Pillow cuts them at 255 where others divide.
"""
import gzip
import pathlib
import sys
import warnings

from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF")
Image.MAX_IMAGE_PIXELS = 40_000_000
warnings.simplefilter("ignore")


def line(path, name):
    with Image.open(path) as picture:
        if picture.format not in FORMATS or picture.mode.startswith(("I", "F")):
            return None
        picture.load()
        # Pillow turns a TIFF while it loads it.
        upright = ImageOps.exif_transpose(picture) if picture.format == "JPEG" else picture
        rgb = upright.convert("RGB")
    width, height = rgb.size
    places = [((2 * i + 1) * width // 8, (2 * j + 1) * height // 8) for j in range(4) for i in range(4)]
    return f"{name}\t{width}\t{height}\t" + "".join("%02x%02x%02x" % rgb.getpixel(place) for place in places)


def main():
    folder = pathlib.Path(sys.argv[1])
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else pathlib.Path(__file__).with_name("pillow_colours.txt.gz")
    lines = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            text = line(path, path.relative_to(folder).as_posix())
        except Exception:  # pylint: disable=broad-except  # of any kind: then there is nothing to compare
            continue
        if text:
            lines.append(text)
    with open(out, "wb") as file:
        file.write(gzip.compress("\n".join(lines).encode() + b"\n", 9, mtime=0))
    print(len(lines), "pictures")


if __name__ == "__main__":
    main()
