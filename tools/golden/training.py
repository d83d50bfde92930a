"""Writes what 20 steps of training do to three small networks of torchvision's blocks, one file for each.

    python tools/golden/training.py tests/graph/golden/training

A ResNet, a MobileNetV2 and a ConvNeXt, each under SGD and AdamW (eps 1e-3, so that gradients near zero do not become full steps), the ResNet
under Muon too.
Weights and batches come from formula.py; step n learns from pictures that keep clear of kinks (kinks.py says why), "image<n>" or the first
of "image<n>.1", "image<n>.2" ..., with the labels (3 i + n) mod 10. Computed in double. Rows: the setting; the pictures and the loss of each
step; of each parameter and running statistic after the last step the Euclidean norm of what it became and of how far it moved, then of
that movement the scalar product with the formula's "probe" and three elements. The rows "float" say how many of float's roundings the
nearest kink was away, and how far PyTorch's own float is from its double in the units that the test compares by: the largest relative
difference of a loss, and of a movement's numbers by its norm. Recorded with torch 2.15, torchvision 0.29.
"""
import pathlib
import sys

import torch
from formula import numbers, uniform, values
from kinks import clearance, distances, rounding_of
from muon import Muon
from torch import nn
from torch.nn import functional
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops.misc import Conv2dNormActivation

CLASSES, STEPS, SIZE, BATCH, GAIN, CLEAR = 10, 20, 32, 8, 3, 3
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.002, weight_decay=0.05, eps=1e-3),
    "muon": lambda p: Muon(p, lr=0.02, momentum=0.85, matrix_momentum=0.6, renormalise=True, weight_decay=1e-3),
}


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(BasicBlock(16, 16))
        self.layer2 = nn.Sequential(BasicBlock(16, 32, 2, self.projection(16, 32)))
        self.layer3 = nn.Sequential(Bottleneck(32, 16, 2, self.projection(32, 64)))
        self.fc = nn.Linear(64, CLASSES)

    @staticmethod
    def projection(channels, to):
        return nn.Sequential(nn.Conv2d(channels, to, 1, 2, bias=False), nn.BatchNorm2d(to))

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


class MobileNetV2(nn.Module):
    def __init__(self):
        super().__init__()
        relu6 = {"norm_layer": nn.BatchNorm2d, "activation_layer": nn.ReLU6}
        self.features = nn.Sequential(
            Conv2dNormActivation(3, 16, stride=2, **relu6), InvertedResidual(16, 16, 1, 1), InvertedResidual(16, 24, 2, 6),
            InvertedResidual(24, 24, 1, 6), Conv2dNormActivation(24, 64, 1, **relu6))
        self.classifier = nn.Sequential(nn.Dropout(0), nn.Linear(64, CLASSES))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


NETWORKS = {
    "resnet": ResNet, "mobilenet_v2": MobileNetV2,
    "convnext": lambda: ConvNeXt([CNBlockConfig(24, 48, 2), CNBlockConfig(48, None, 1)], num_classes=CLASSES),
}


def batch(pictures, step):
    images = uniform(pictures, BATCH * 3 * SIZE * SIZE).reshape(BATCH, 3, SIZE, SIZE)
    return torch.from_numpy(images), torch.tensor([(3 * i + step) % CLASSES for i in range(BATCH)])


def state(network):
    return {k: v.detach().double().clone() for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}


class Training:
    def __init__(self, build, optimizer, dtype):
        self.network, self.dtype = build(), dtype
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                if not name.endswith("num_batches_tracked"):
                    value.copy_(torch.from_numpy(values(name, tuple(value.shape), GAIN)))
        self.network.to(dtype).train()
        self.optimizer, self.losses, self.before = OPTIMIZERS[optimizer](self.network.parameters()), [], state(self.network)

    def step(self, images, labels):
        loss = functional.cross_entropy(self.network(images.to(self.dtype)), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())

    def distances(self, images):
        kept = {k: v.clone() for k, v in self.network.state_dict().items()}
        found = distances(self.network, images.to(self.dtype))
        self.network.load_state_dict(kept)  # the running statistics moved
        return found


def clear_pictures(exact, rough, step):
    """The first pictures at which both trainings are clear of kinks."""
    for attempt in range(1000):
        name = f"image{step}" + (f".{attempt}" if attempt else "")
        images, _ = batch(name, step)
        of_exact, of_rough = exact.distances(images), rough.distances(images)
        clear = clearance(of_exact, [rounding_of(r, e) for r, e in zip(of_rough, of_exact)])
        if clear >= CLEAR:
            return name, clear
    raise SystemExit(f"no pictures of step {step} are clear of kinks; change the rates")


def train(build, optimizer):
    """Trainings in double and in float side by side, the names of their pictures, and how clear of kinks all were."""
    exact, rough = Training(build, optimizer, torch.float64), Training(build, optimizer, torch.float32)
    pictures, clear = [], float("inf")
    for step in range(STEPS):
        name, now = clear_pictures(exact, rough, step)
        pictures.append(name)
        clear = min(clear, now)
        for training in (exact, rough):
            training.step(*batch(name, step))
    return exact, rough, pictures, clear


def movement(before, after):
    """Scalar product with the probe and three elements."""
    moved = (after - before).flatten()
    probe = torch.from_numpy(uniform("probe", moved.numel())).double()
    return torch.stack([moved @ probe, *moved[[0, moved.numel() // 2, moved.numel() - 1]]])


def write(name, folder):
    rows = [["setting", str(SIZE), str(BATCH), str(GAIN)]]
    for optimizer in OPTIMIZERS:
        if optimizer == "muon" and name != "resnet":
            continue
        exact, rough, pictures, clear = train(NETWORKS[name], optimizer)
        losses, before, after, rough_after = exact.losses, exact.before, state(exact.network), state(rough.network)
        of_losses = max(abs(a / b - 1) for a, b in zip(rough.losses, losses))
        of_movements = max(float((movement(before[k], rough_after[k]) - movement(before[k], after[k])).abs().max() /
                                 (after[k] - before[k]).norm()) for k in after)
        print(f"{name} by {optimizer}: loss {losses[0]:.4f} -> {losses[-1]:.4f}, kinks at {clear:.1f} roundings, float is off by "
              f"{of_losses:.1e} (losses), {of_movements:.1e} (movements)", flush=True)
        rows.append(["pictures", optimizer, *pictures])
        rows.append(["loss", optimizer, *(f"{loss:.9g}" for loss in losses)])
        rows.append(["float", optimizer, f"{clear:.2g}", f"{of_losses:.2g}", f"{of_movements:.2g}"])
        for k in after:
            moved = after[k] - before[k]
            rows.append(["after", optimizer, k, *numbers(after[k].norm()), *numbers(moved.norm()),
                         *numbers(movement(before[k], after[k]))])
    (folder / f"{name}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))


folder = pathlib.Path(sys.argv[1])
folder.mkdir(exist_ok=True)
for name in sys.argv[2:] or NETWORKS:
    write(name, folder)
