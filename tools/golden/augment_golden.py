"""Makes tests/augment/golden/: what Pillow and torchvision do to small synthetic pictures.

    python3 tools/golden/augment_golden.py [output folder]

Needs Pillow, numpy, torch and torchvision (made with Pillow 13.0, torchvision 0.29). The tests read the files only.
cases.txt has a line for each case: kind, name, then `key=value` numbers; `at` is the first element in values.u8 or
values.f32 (little-endian), whose layout is [height, width, channels].
"""

import pathlib
import sys

import numpy as np
import torch
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import functional as F


def picture(width, height, channels):
    """The pictures of tests/augment/golden.h: a smooth ramp with hard, irregular detail on top."""
    y, x, c = np.mgrid[0:height, 0:width, 0:channels]
    detail = (x * 37 + y * 91 + c * 53 + x * y * 13) % 97
    ramp = (x * 5 + y * 3 + c * 20) % 256
    return np.where((x // 3 + y // 2) % 2 == 0, ramp, (ramp + detail * 2) % 256).astype(np.uint8)


def pillow(width, height, channels):
    values = picture(width, height, channels)
    return Image.fromarray(values[:, :, 0] if channels == 1 else values)


def as_array(image):
    values = np.asarray(image)
    return values[:, :, None] if values.ndim == 2 else values


class Golden:
    def __init__(self):
        self.lines, self.values = [], {"u8": [], "f32": []}
        self.sizes = {"u8": 0, "f32": 0}

    def add(self, kind, name, values, **numbers):
        store = "u8" if values.dtype == np.uint8 else "f32"
        numbers["at"] = self.sizes[store]
        numbers["out_height"], numbers["out_width"] = values.shape[0], values.shape[1]
        self.lines.append(" ".join([kind, name] + [f"{k}={v}" for k, v in numbers.items()]))
        self.values[store].append(np.ascontiguousarray(values))
        self.sizes[store] += values.size

    def write(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cases.txt").write_text("\n".join(self.lines) + "\n")
        for store, parts in [(store, parts) for store, parts in self.values.items() if parts]:
            dtype = np.uint8 if store == "u8" else "<f4"
            (folder / f"values.{store}").write_bytes(b"".join(p.astype(dtype).tobytes() for p in parts))


def resizes(golden):
    """Crop first, then resize: torchvision's resized_crop of a PIL image."""
    for name, size, box, out, channels in [
        ("down", (37, 29), (0, 0, 37, 29), (16, 12), 3),
        ("up", (9, 7), (0, 0, 9, 7), (24, 20), 3),
        ("down_far", (96, 80), (0, 0, 96, 80), (7, 5), 3),
        ("wide_to_tall", (40, 10), (0, 0, 40, 10), (8, 25), 3),
        ("same", (13, 11), (0, 0, 13, 11), (13, 11), 3),
        ("crop_down", (48, 40), (5, 7, 44, 36), (16, 16), 3),
        ("crop_up", (48, 40), (30, 31, 41, 40), (19, 17), 3),
        ("crop_copy", (48, 40), (11, 3, 27, 19), (16, 16), 3),
        ("grey_down", (31, 33), (1, 2, 30, 33), (12, 14), 1),
        ("one_row", (40, 1), (0, 0, 40, 1), (9, 6), 3),
        ("one_column", (1, 40), (0, 0, 1, 40), (6, 9), 3),
        ("one_pixel", (1, 1), (0, 0, 1, 1), (4, 3), 3),
        ("to_one_pixel", (17, 19), (0, 0, 17, 19), (1, 1), 3),
    ]:
        left, top, right, bottom = box
        image = F.resized_crop(pillow(*size, channels), top, left, bottom - top, right - left, [out[1], out[0]])
        golden.add("resize", name, as_array(image), width=size[0], height=size[1], channels=channels, left=left, top=top,
                   right=right, bottom=bottom)


def filters(golden):
    """Other filters than bilinear: resized float tensors, antialiased where torchvision does it, clamped to 0..1."""
    for name, size, out, mode, channels in [
        ("bicubic_down", (37, 29), (16, 12), "bicubic", 3),
        ("bicubic_up", (9, 7), (24, 20), "bicubic", 3),
        ("bicubic_grey", (31, 33), (12, 40), "bicubic", 1),
        ("nearest_down", (37, 29), (16, 12), "nearest-exact", 3),
        ("nearest_up", (9, 7), (24, 20), "nearest-exact", 3),
    ]:
        image = torch.from_numpy(picture(*size, channels)).permute(2, 0, 1).float() / 255
        image = F.resize(image, [out[1], out[0]], T.InterpolationMode(mode), antialias=mode == "bicubic").clamp(0, 1)
        golden.add("filter", name, image.permute(1, 2, 0).numpy(), width=size[0], height=size[1], channels=channels,
                   bicubic=int(mode == "bicubic"))


def borders(golden):
    """Crops that reach beyond the picture: torchvision's pad."""
    for name, size, pad, mode in [("reflect", (9, 7), 5, "reflect"), ("edge", (9, 7), 12, "edge"), ("reflect_row", (6, 3), 2, "reflect")]:
        image = F.pad(torch.from_numpy(picture(*size, 3)).permute(2, 0, 1).float() / 255, [pad], padding_mode=mode)
        golden.add("border", name, image.permute(1, 2, 0).numpy(), width=size[0], height=size[1], channels=3, pad=pad,
                   reflect=int(mode == "reflect"))


def centre_crops(golden):
    """Resize and CenterCrop, the evaluation pipeline."""
    for name, size, resize, crop, channels in [
        ("landscape", (50, 37), 20, (16, 16), 3),
        ("portrait", (37, 50), 20, (16, 16), 3),
        ("odd_margin", (31, 45), 19, (14, 16), 3),
        ("half_to_even", (45, 30), 21, (16, 18), 3),
        ("enlarged", (9, 14), 17, (16, 16), 3),
        ("padded", (29, 21), 10, (15, 18), 3),
        ("padded_one_way", (40, 12), 11, (16, 16), 3),
        ("grey", (33, 47), 18, (16, 16), 1),
    ]:
        image = T.Compose([T.Resize(resize), T.CenterCrop(crop)])(pillow(*size, channels))
        golden.add("centre_crop", name, as_array(image), width=size[0], height=size[1], channels=channels, resize=resize)


def colours(golden):
    """Brightness, contrast, saturation, hue, grey in this order on a float tensor."""
    for name, brightness, contrast, saturation, hue, grey, channels in [
        ("brighter", 1.4, 1, 1, 0, 0, 3),
        ("darker", 0.3, 1, 1, 0, 0, 3),
        ("contrast_up", 1, 1.7, 1, 0, 0, 3),
        ("contrast_down", 1, 0.25, 1, 0, 0, 3),
        ("saturated", 1, 1, 1.9, 0, 0, 3),
        ("greyed", 1, 1, 0, 0, 0, 3),
        ("hue_up", 1, 1, 1, 0.3, 0, 3),
        ("hue_down", 1, 1, 1, -0.45, 0, 3),
        ("to_grey", 1, 1, 1, 0, 1, 3),
        ("all", 1.25, 0.6, 1.5, 0.1, 0, 3),
        ("grey_all", 0.8, 1.6, 1.5, 0, 0, 1),
    ]:
        image = torch.from_numpy(picture(14, 12, channels)).permute(2, 0, 1).float() / 255
        image = F.adjust_brightness(image, brightness)
        image = F.adjust_contrast(image, contrast)
        image = F.adjust_saturation(image, saturation)
        if hue != 0:
            image = F.adjust_hue(image, hue)
        if grey:
            image = F.rgb_to_grayscale(image, 3)
        golden.add("colour", name, image.permute(1, 2, 0).numpy(), width=14, height=12, channels=channels,
                   brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, to_grey=grey)


def affines(golden):
    """Sheared, turned counter-clockwise by `angle`, enlarged by `zoom`, shifted by (x, y), black outside. The zoom keeps the
    map from shrinking anything: torchvision antialiases nothing here."""
    for name, angle, zoom, x, y, shear_x, shear_y in [
        ("turn", 30, 1, 0, 0, 0, 0),
        ("turn_back", -75, 1, 0, 0, 0, 0),
        ("turn_zoom", 17, 1.5, 0, 0, 0, 0),
        ("turn_shift", 40, 1.2, 3, -2, 0, 0),
        ("shear_x", 0, 1.25, 0, 0, 20, 0),
        ("shear_y", 0, 1.25, 0, 0, 0, -15),
        ("shear_all", 25, 1.6, 2, 1, 18, 12),
    ]:
        image = torch.from_numpy(picture(18, 14, 3)).permute(2, 0, 1).float() / 255
        # torchvision's affine counts angles clockwise.
        image = F.affine(image, -angle, [x, y], zoom, [shear_x, shear_y], T.InterpolationMode.BILINEAR)
        golden.add("affine", name, image.permute(1, 2, 0).numpy(), width=18, height=14, channels=3, angle=angle, zoom=zoom,
                   x=x, y=y, shear_x=shear_x, shear_y=shear_y)


def main():
    default = pathlib.Path(__file__).parents[2] / "tests" / "augment" / "golden"
    golden = Golden()
    for part in (resizes, centre_crops, colours, affines, filters, borders):
        part(golden)
    golden.write(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default)


if __name__ == "__main__":
    main()
