"""Writes what torchvision's networks (and timm's seresnet50) are made of.

    python tools/golden/torchvision_parameters.py tests/graph/golden

models.tsv: for each network its trainable parameters; a digest: FNV-1a, 64 bits, of the sorted lines
"name:64x3x7x7:parameter|buffer\\n"; what is published with its weights: multiply-adds (10^9) and evaluation pictures. <model>.tsv, for
one member of each family: the name and shape of every tensor, so that a difference can be read. Recorded with torchvision 0.29 and timm
1.0. num_batches_tracked is left out: it is a number of the checkpoint, not a tensor of the network.
"""
import pathlib
import sys

import timm
import torch
import torchvision

TORCHVISION = """alexnet vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn vgg19_bn squeezenet1_0 squeezenet1_1
resnet18 resnet34 resnet50 resnet101 resnet152 wide_resnet50_2 wide_resnet101_2 resnext50_32x4d resnext101_32x8d resnext101_64x4d
densenet121 densenet161 densenet169 densenet201 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large
shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0 mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3
efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7
efficientnet_v2_s efficientnet_v2_m efficientnet_v2_l
regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf regnet_x_8gf
regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf
convnext_tiny convnext_small convnext_base convnext_large""".split()
TABLES = """alexnet vgg11_bn squeezenet1_1 resnet18 resnet50 se_resnet50 densenet121 mobilenet_v2 mobilenet_v3_small shufflenet_v2_x0_5
mnasnet0_5 efficientnet_b0 regnet_y_400mf convnext_tiny""".split()


def build(model):
    with torch.device("cpu" if model.startswith("regnet") else "meta"):  # regnets compute their widths with tensors
        return timm.create_model("seresnet50") if model == "se_resnet50" else torchvision.models.get_model(model, weights=None)


def published(model):
    """Multiply-adds (0: not published), and of the evaluation crop, resize, mean of red and filter; torchvision's first weights, timm's own."""
    if model == "se_resnet50":
        config = timm.get_pretrained_cfg("seresnet50")
        return 0, config.input_size[1], int(config.input_size[1] / config.crop_pct), config.mean[0], config.interpolation
    weights = list(torchvision.models.get_model_weights(model))[0]
    transforms = weights.transforms()
    return weights.meta["_ops"], transforms.crop_size[0], transforms.resize_size[0], transforms.mean[0], transforms.interpolation.value


def fnv1a(text):
    digest = 0xCBF29CE484222325
    for byte in text.encode():
        digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{digest:016x}"


folder = pathlib.Path(sys.argv[1])
rows = ["model\tparameters\tdigest\tmultiply_adds\tcrop\tresize\tmean\tinterpolation"]
for model in [*TORCHVISION, "se_resnet50"]:
    network = build(model)
    parameters = dict(network.named_parameters())
    state = {n: "x".join(map(str, v.shape)) for n, v in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    lines = sorted(f"{n}:{shape}:{'parameter' if n in parameters else 'buffer'}\n" for n, shape in state.items())
    count = sum(p.numel() for p in parameters.values())
    rows.append("\t".join(map(str, (model, count, fnv1a("".join(lines)), *published(model)))))
    if model in TABLES:
        (folder / f"{model}.tsv").write_text("\n".join(["name\tshape", *(f"{n}\t{shape}" for n, shape in state.items())]) + "\n")
(folder / "models.tsv").write_text("\n".join(rows) + "\n")
