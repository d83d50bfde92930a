"""Writes what torchvision's networks (and timm's seresnet50, and K. Jordan's airbench94) compute, one file for each.

    python tools/golden/network_steps.py tests/graph/golden/steps [NETWORK...]

Ten classes; weights, statistics and pictures come from formula.py. Rows: the setting; the logits of an evaluation; for the cheaper
networks a step of training without dropout and stochastic depth: the loss, the Euclidean norm and three elements of each gradient, the
running statistics of the first and the last batch norm. Computed in double.

Each network is given pictures that keep clear of kinks (kinks.py says why): of "image", "image1", "image2" ... the first whose elements
are all at least CLEAR times as far from every kink as float's rounding moves the elements of the same tensor. The row "float" records
that distance, and how far PyTorch's own float is from its double in the unit of the test, the largest norm of a gradient. Recorded with torch 2.15, torchvision 0.29, timm 1.0.
"""
import pathlib
import sys

import timm
import torch
import torchvision
from airbench import CifarNet
from formula import numbers, uniform, values
from kinks import clearance, distances, rounding_of
from torch.nn import functional

CLASSES, CLEAR, SEEDS = 10, 3, 100
NETWORKS = {  # picture size, batch, whether to train; squared gain of the weights, less where rounding would grow from layer to layer;
    # centre of the biases, 2 where so many elements would lie near 0 that no picture is clear of kinks
    "alexnet": (96, 2, False), "vgg11_bn": (64, 2, False), "squeezenet1_1": (70, 2, True), "resnext50_32x4d": (64, 2, False),
    "se_resnet50": (64, 4, True, 1, 2), "densenet121": (64, 4, True, 1, 2), "mobilenet_v2": (64, 4, True, 1, 2),
    "mobilenet_v3_small": (64, 4, True), "shufflenet_v2_x0_5": (64, 4, True, 1, 2), "mnasnet0_5": (64, 4, True, 1, 2),
    "airbench94": (32, 4, True), "efficientnet_b0": (64, 4, True), "efficientnet_v2_s": (64, 2, False, 2, 0), "regnet_x_400mf": (64, 4, True, 1, 2),
    "regnet_y_400mf": (64, 4, True, 1, 2), "convnext_tiny": (64, 2, True)}


def build(model):
    if model == "airbench94":
        return CifarNet(CLASSES)
    if model == "se_resnet50":
        return timm.create_model("seresnet50", num_classes=CLASSES)
    return torchvision.models.get_model(model, weights=None, num_classes=CLASSES)


def load(network, gain, bias, dtype):
    state = network.state_dict()
    for name, value in state.items():
        if not name.endswith("num_batches_tracked"):
            value.copy_(torch.from_numpy(values(name, tuple(value.shape), gain, bias)))
    return network.to(dtype)


def without_chance(network):
    for module in network.modules():
        if isinstance(module, (torch.nn.Dropout, torchvision.ops.StochasticDepth)):
            module.p = 0.0
    return network.train()


def batch_of(name, batch, size):
    images = torch.from_numpy(uniform(name, batch * 3 * size * size).reshape(batch, 3, size, size))
    return images, torch.tensor([3 * i % CLASSES for i in range(batch)])


def clear_pictures(model, gain, bias, batch, size):
    """The name of the pictures, and how clear of kinks they keep: of the first that are clear enough, else of the best."""
    network = without_chance(load(build(model), gain, bias, torch.float32))
    images, _ = batch_of("image", batch, size)
    exact = distances(without_chance(load(build(model), gain, bias, torch.float64)), images.double())
    rounding = [rounding_of(d, e) for d, e in zip(distances(network, images), exact)]
    best = ("image", 0.0)
    for seed in range(SEEDS):
        name = f"image{seed or ''}"
        clear = clearance(distances(network, batch_of(name, batch, size)[0]), rounding)
        if clear > best[1]:
            best = (name, clear)
        if clear >= CLEAR:
            break
    return best


def step(network, images, labels):
    loss = functional.cross_entropy(without_chance(network)(images), labels)
    loss.backward()
    return loss


def of_gradient(p):
    g = p.grad.flatten().double()
    return torch.stack([g.norm(), *g[[0, g.numel() // 2, g.numel() - 1]]])


def training_rows(network, rough, images, labels, clear):
    loss = step(network, images.double(), labels)
    step(rough, images, labels)
    gradients = {name: of_gradient(p) for name, p in network.named_parameters()}
    steepest = max(float(g[0]) for g in gradients.values())
    off = max(float((of_gradient(p) - gradients[name]).abs().max()) for name, p in rough.named_parameters()) / steepest
    rows = [["float", f"{clear:.2g}", f"{off:.2g}"], ["loss", *numbers(loss)]]
    rows += [["gradient", name, *numbers(g)] for name, g in gradients.items()]
    norms = [n for n, b in network.named_buffers() if n.endswith("running_var")]
    for name in norms[:1] + norms[-1:] if norms else []:
        for buffer in (name.replace("running_var", "running_mean"), name):
            rows.append(["buffer", buffer, *numbers(network.get_buffer(buffer)[:3])])
    return rows


folder = pathlib.Path(sys.argv[1])
folder.mkdir(exist_ok=True)
for model in sys.argv[2:] or NETWORKS:
    size, batch, train, gain, bias = NETWORKS[model] if len(NETWORKS[model]) == 5 else (*NETWORKS[model], 6, 0)
    pictures, clear = clear_pictures(model, gain, bias, batch, size) if train else ("image", 0.0)
    images, labels = batch_of(pictures, batch, size)
    network, rough = load(build(model), gain, bias, torch.float64), load(build(model), gain, bias, torch.float32)
    with torch.no_grad():
        rows = [["setting", str(size), str(batch), str(gain), str(bias), pictures], ["logits", *numbers(network.eval()(images.double()))]]
    if train:
        rows += training_rows(network, rough, images, labels, clear)
    (folder / f"{model}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    print(model, pictures, *rows[2] if train else "", flush=True)
