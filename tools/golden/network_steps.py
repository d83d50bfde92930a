"""Writes what torchvision's networks (and timm's seresnet50) compute, one file for each.

    python tools/golden/network_steps.py tests/graph/golden/steps

Ten classes; weights, statistics and pictures are a function of (name, index) that tests/graph/network_steps_test.cpp computes too, so
that none are shipped. Rows: the setting; the logits of an evaluation; for the cheaper networks a step of training without dropout and
stochastic depth: the loss, the Euclidean norm and three elements of each gradient, the running statistics of the first and the last
batch norm. Computed in double. Recorded with torch 2.15, torchvision 0.29, timm 1.0.
"""
import pathlib
import sys

import numpy as np
import timm
import torch
import torchvision

CLASSES = 10
NETWORKS = {  # picture size, batch, whether to train; squared gain of the weights, less where rounding would grow from layer to layer
    "alexnet": (96, 2, False), "vgg11_bn": (64, 2, False), "squeezenet1_1": (70, 2, True), "resnext50_32x4d": (64, 2, False),
    "se_resnet50": (64, 4, True), "densenet121": (64, 4, True), "mobilenet_v2": (64, 4, True),
    "mobilenet_v3_small": (64, 4, True), "shufflenet_v2_x0_5": (64, 4, True), "mnasnet0_5": (64, 4, True),
    "efficientnet_b0": (64, 4, True), "efficientnet_v2_s": (64, 2, False, 2), "regnet_x_400mf": (64, 4, True),
    "regnet_y_400mf": (64, 4, True), "convnext_tiny": (64, 2, True)}


def uniform(name, count):
    """Float32 in [-1, 1): MurmurHash3's finaliser of FNV-1a(name) + index * 0x9E3779B9, its upper 24 bits."""
    seed = 0x811C9DC5
    for byte in name.encode():
        seed = (seed ^ byte) * 0x01000193 & 0xFFFFFFFF
    h = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9) + np.uint32(seed)
    h = (h ^ h >> np.uint32(16)) * np.uint32(0x85EBCA6B)
    h = (h ^ h >> np.uint32(13)) * np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return (h >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)


def values(name, shape, gain):
    u = uniform(name, int(np.prod(shape))).reshape(shape)
    if name.endswith("layer_scale"):
        return u * np.float32(0.25)
    if len(shape) > 1:
        return u * np.float32(np.sqrt(gain / np.prod(shape[1:])))
    if name.endswith("running_var") or name.endswith("weight"):
        return np.float32(1) + u * np.float32(0.25)
    return u * np.float32(0.1)


def build(model):
    if model == "se_resnet50":
        return timm.create_model("seresnet50", num_classes=CLASSES)
    return torchvision.models.get_model(model, weights=None, num_classes=CLASSES)


def load(network, gain=6):
    state = network.state_dict()
    for name, value in state.items():
        if not name.endswith("num_batches_tracked"):
            value.copy_(torch.from_numpy(values(name, tuple(value.shape), gain)))
    return network.double()


def without_chance(network):
    for module in network.modules():
        if isinstance(module, (torch.nn.Dropout, torchvision.ops.StochasticDepth)):
            module.p = 0.0
    return network.train()


def numbers(tensor):
    return [f"{float(v):.8g}" for v in tensor.detach().flatten()]


def training_rows(network, images, labels):
    loss = torch.nn.functional.cross_entropy(without_chance(network)(images), labels)
    loss.backward()
    rows = [["loss", *numbers(loss)]]
    for name, p in network.named_parameters():
        g = p.grad.flatten()
        rows.append(["gradient", name, *numbers(g.norm()), *numbers(g[[0, g.numel() // 2, g.numel() - 1]])])
    norms = [n for n, b in network.named_buffers() if n.endswith("running_var")]
    for name in norms[:1] + norms[-1:] if norms else []:
        for buffer in (name.replace("running_var", "running_mean"), name):
            rows.append(["buffer", buffer, *numbers(network.get_buffer(buffer)[:3])])
    return rows


folder = pathlib.Path(sys.argv[1])
folder.mkdir(exist_ok=True)
for model in sys.argv[2:] or NETWORKS:
    size, batch, train, gain = (*NETWORKS[model], 6)[:4]
    network = load(build(model), gain)
    images = torch.from_numpy(uniform("image", batch * 3 * size * size).reshape(batch, 3, size, size)).double()
    labels = torch.tensor([3 * i % CLASSES for i in range(batch)])
    with torch.no_grad():
        rows = [["setting", str(size), str(batch), str(gain)], ["logits", *numbers(network.eval()(images))]]
    if train:
        rows += training_rows(network, images, labels)
    (folder / f"{model}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    print(model, rows[1][1:4], rows[2][1:2] if train else "")
