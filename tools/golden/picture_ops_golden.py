"""Makes tests/augment/golden/ops/: what torchvision, timm and Pillow do to small synthetic pictures of bytes.

    python3 tools/golden/picture_ops_golden.py [output folder]

Needs Pillow, numpy, torch, torchvision, timm and simplejpeg (made with Pillow 13.0, torch 2.15, torchvision 0.29, timm
1.0.31, simplejpeg 1.9). The tests read the files only. A case is as in augment_golden.py: its kind is an operation of
kernels/picture_ops.h, jpeg_*, augmix or chain; `a` and `b` are the operation's numbers. Before it each pixel of the
picture becomes `stretch` x `stretch` ones, and bytes v become low + v span / 255, down.
"""

import io
import math
import pathlib
import sys

import numpy as np
import simplejpeg
import torch
from augment_golden import Golden, as_array, picture
from PIL import Image
from timm.data.auto_augment import solarize_add
from torchvision.transforms.functional import _get_perspective_coeffs
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

BILINEAR = InterpolationMode.BILINEAR
SMALL = (22, 18)


def tensor(values):
    return torch.from_numpy(np.array(values)).permute(2, 0, 1)


class Ops(Golden):
    def case(self, kind, name, change, size=(29, 25), channels=3, low=0, span=255, stretch=1, **numbers):
        start = picture(*size, channels)
        start = start.repeat(stretch, 0).repeat(stretch, 1)[:size[1], :size[0]]
        start = low + start.astype(np.int64) * span // 255
        result = change(tensor(start.astype(np.uint8)))
        assert result.dtype == torch.uint8
        self.add(kind, name, result.permute(1, 2, 0).numpy(), width=size[0], height=size[1], channels=channels, low=low,
                 span=span, stretch=stretch, **numbers)

    # The same for a colour and for a grey picture.
    def both(self, kind, name, change, **numbers):
        self.case(kind, name, change, **numbers)
        self.case(kind, f"{name}_grey", change, (40, 32), 1, **numbers)


def colours(golden):
    for kind, function, factors in [
        ("brightness", F.adjust_brightness, (0.3, 1.4, 2.75)),
        ("contrast", F.adjust_contrast, (0.25, 1.7)),
        ("saturation", F.adjust_saturation, (0.0, 0.4, 1.9)),
        ("sharpness", F.adjust_sharpness, (0.0, 0.1, 1.9)),
    ]:
        for a in factors:
            golden.case(kind, f"by_{a}", lambda x: function(x, a), SMALL, a=a)
        golden.case(kind, "grey", lambda x: function(x, 1.6), (40, 32), 1, a=1.6)
    golden.case("sharpness", "two_rows", lambda x: F.adjust_sharpness(x, 1.9), (9, 2), a=1.9)
    golden.case("sharpness", "three_rows", lambda x: F.adjust_sharpness(x, 1.9), (9, 3), a=1.9)


def levels(golden):
    golden.both("invert", "all", F.invert)
    for a in (0.0, 77.5, 128.0, 255.0):
        golden.case("solarize", f"from_{a}", lambda x: F.solarize(x, a), SMALL, a=a)
    for a in (1, 4, 7, 8):
        golden.case("posterize", f"bits_{a}", lambda x: F.posterize(x, a), SMALL, a=a)
    for add, below in ((40, 128), (110, 128), (110, 256), (255, 10)):
        def timm(x):
            image = Image.fromarray(x.permute(1, 2, 0).numpy())
            return tensor(np.asarray(solarize_add(image, add, below)))
        golden.case("solarize_add", f"{add}_below_{below}", timm, SMALL, a=add, b=below)
    for kind, function in (("auto_contrast", F.autocontrast), ("equalize", F.equalize)):
        golden.both(kind, "all", function)
        for low, span in ((30, 100), (100, 7), (0, 60), (200, 1), (77, 0)):
            golden.case(kind, f"{low}_and_{span}", function, SMALL, low=low, span=span)
    golden.case("equalize", "too_few_pixels", F.equalize, (16, 15))
    golden.case("equalize", "enough_pixels", F.equalize, (20, 16))


def blurs(golden):
    for sigma in (0.3, 0.8, 2.0, 4.0):
        radius = math.ceil(3 * sigma)
        size = 2 * radius + 1
        golden.both("blur", f"by_{sigma}", lambda x: F.gaussian_blur(x, [size] * 2, [sigma] * 2), a=sigma, b=radius)


def places(golden):
    """As _apply_image_or_video_transform calls them. fill=None is black: fill=0 blends the edges with black twice."""
    for a in (0.3, -0.3):
        def shear_x(x):
            return F.affine(x, 0.0, [0, 0], 1.0, [math.degrees(math.atan(a)), 0.0], BILINEAR, center=[0, 0])

        def shear_y(x):
            return F.affine(x, 0.0, [0, 0], 1.0, [0.0, math.degrees(math.atan(a))], BILINEAR, center=[0, 0])

        golden.both("shear_x", f"by_{a}", shear_x, a=a)
        golden.both("shear_y", f"by_{a}", shear_y, a=a)
    for a, b in ((7, 0), (0, -5), (-12, 9)):
        golden.case("translate", f"{a}_{b}", lambda x: F.affine(x, 0.0, [a, b], 1.0, [0.0, 0.0], BILINEAR), a=a, b=b)
    for angle in (30, -17, 135):
        golden.both("rotate", f"by_{angle}", lambda x: F.rotate(x, angle, BILINEAR), a=math.cos(math.radians(angle)),
                    b=math.sin(math.radians(angle)))


def perspectives(golden):
    for name, (width, height), ends in [
        ("wide", (37, 29), [[3, 2], [33, 4], [31, 27], [5, 22]]),
        ("other", (40, 32), [[0, 9], [39, 0], [30, 31], [9, 23]]),
    ]:
        starts = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
        map = _get_perspective_coeffs(starts, ends)
        golden.case("perspective", name, lambda x: F.perspective(x, None, None, BILINEAR, None, map), (width, height),
                    **{f"m{i}": m for i, m in enumerate(map)})


def chains(golden):
    """Of tests/augment/picture_ops_reference_test.cpp too."""
    def chain(x):
        return F.adjust_saturation(F.rotate(F.equalize(F.gaussian_blur(x, [5, 5], [0.6, 0.6])), 45, BILINEAR), 0.5)

    golden.case("chain", "blur_equalize_rotate_saturation", chain)
    for name, kept, weights in (("half", 0.5, (0.25, 0.125, 0.125)), ("uneven", 0.3, (0.37, 0.09, 0.24))):
        def augmix(x):
            mixed = kept * x
            first = F.affine(F.solarize(x, 128.0), 0.0, [5, 0], 1.0, [0.0, 0.0], BILINEAR)
            second = F.adjust_brightness(F.posterize(x, 3), 1.25)
            for weight, picture in zip(weights, (first, second, F.equalize(x))):
                mixed.add_(weight * picture)
            return mixed.to(torch.uint8)
        golden.case("augmix", name, augmix, kept=kept, **{f"w{i}": w for i, w in enumerate(weights)})


def jpegs(golden):
    """Pillow's decoder interpolates chroma; jpeg_repeated is of one that repeats it. Where the picture is made of
    squares of 2x2 their mean is exact, and what lies beyond the edges the same for all."""
    def encoded(x, quality):
        file = io.BytesIO()
        values = x.permute(1, 2, 0).numpy()
        image = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
        image.save(file, "JPEG", quality=quality, subsampling=2)
        return file

    def pillow(x, quality):
        return tensor(as_array(Image.open(encoded(x, quality))))

    def repeated(x, quality):
        return tensor(simplejpeg.decode_jpeg(encoded(x, quality).getvalue(), fastdct=False, fastupsample=True))

    for quality in (90, 50, 20):
        golden.case("jpeg", f"quality_{quality}", lambda x: pillow(x, quality), stretch=8, a=quality)
        golden.case("jpeg_grey", f"quality_{quality}", lambda x: pillow(x, quality), (37, 29), 1, a=quality)
        golden.case("jpeg_repeated", f"quality_{quality}", lambda x: repeated(x, quality), (38, 24), stretch=2,
                    a=quality)
    golden.case("jpeg_means", "quality_50", lambda x: repeated(x, 50), (38, 24), a=50)


def main():
    default = pathlib.Path(__file__).parents[2] / "tests" / "augment" / "golden" / "ops"
    golden = Ops()
    for part in (colours, levels, blurs, places, perspectives, chains, jpegs):
        part(golden)
    golden.write(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default)


if __name__ == "__main__":
    main()
