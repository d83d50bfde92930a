"""Convolt's network files (docs/network-format.md) as PyTorch modules.

    python benchmarks/peers/networks.py [MODEL...]    compares them with torchvision's, and airbench94 with tools/golden/airbench.py's: same
                                                      names, same number of parameters, same logits

Layers act on NCHW tensors in whatever memory format they come. A value is let go after its last reader, and activations
work in place where they may, as torchvision's do: what PyTorch holds in a step is what it needs.
"""
import os
import sys

import torch
import torch.nn.functional as F
from torch import nn

from convolt_program import ROOT, network_text

ACTIVATIONS = {
    "relu": F.relu, "relu6": F.relu6, "silu": F.silu, "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "mish": F.mish,
    "leaky_relu": lambda x, inplace=False: F.leaky_relu(x, 0.01, inplace)}
PLAIN = {"gelu": F.gelu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}


def side_of(text):
    """Of square pictures."""
    size = text["input"].get("size", 224)
    return size if isinstance(size, int) else size[0]


def pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def margins(layer):
    padding = pair(layer.get("padding", 0))
    if len(padding) == 4:
        top, left, bottom, right = padding
        if (top, left) != (bottom, right):
            raise ValueError(f"{layer['name']}: margins that differ are not known here: {padding}")
        return top, left
    return padding


class OnChannels(nn.Module):
    """A module that acts on the last extent, for the channels of each pixel."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x) if x.dim() == 2 else self.module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LayerScale(nn.Module):
    def __init__(self, channels, init):
        super().__init__()
        self.factors = nn.Parameter(torch.full((channels, 1, 1), init))

    def forward(self, x):
        return x * self.factors


class StochasticDepth(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training or self.p == 0:
            return x
        keep = torch.empty(x.shape[0], *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        return x * keep.div_(1 - self.p)


def module_of(layer, x, classes):
    """What holds a layer's parameters or state, for an input such as x; None for a layer without any."""
    kind, channels = layer["kind"], x.shape[1]
    out = [classes if layer.get(key) == "classes" else layer.get(key) for key in ("channels", "units")]
    if kind == "conv2d":
        return nn.Conv2d(channels, out[0], pair(layer.get("kernel", 3)), pair(layer.get("stride", 1)), margins(layer),
                         pair(layer.get("dilation", 1)), layer.get("groups", 1), layer.get("bias", False))
    if kind == "batch_norm":
        return nn.BatchNorm2d(channels, layer.get("eps", 1e-5), layer.get("momentum", 0.1))
    if kind == "layer_norm":
        return OnChannels(nn.LayerNorm(channels, layer.get("eps", 1e-6)))
    if kind == "linear":
        return OnChannels(nn.Linear(channels, out[1], layer.get("bias", True)))
    if kind == "layer_scale":
        return LayerScale(channels, layer.get("init", 1e-6))
    if kind == "dropout":
        return nn.Dropout(layer.get("p", 0))
    if kind == "stochastic_depth":
        return StochasticDepth(layer.get("p", 0))
    return None


def slice_pad(x, layer):
    step, before = layer["stride"], layer.get("channels_before", 0)
    x = x[:, :, ::step, ::step]
    return F.pad(x, (0, 0, 0, 0, before, layer["channels"] - x.shape[1] - before))


def apply(layer, inputs, in_place):
    """A layer without parameters."""
    x, kind = inputs[0], layer["kind"]
    if kind in ACTIVATIONS:
        return ACTIVATIONS[kind](x, inplace=in_place)
    if kind in PLAIN:
        return PLAIN[kind](x)
    if kind == "add":
        return x + inputs[1]
    if kind == "mul":
        return x * inputs[1]
    if kind == "concat":
        return torch.cat(inputs, 1)
    if kind in ("max_pool", "avg_pool"):
        window = pair(layer.get("kernel", 2)), pair(layer.get("stride", 2)), margins(layer)
        if kind == "max_pool":
            return F.max_pool2d(*[x, *window], ceil_mode=layer.get("ceil_mode", False))
        return F.avg_pool2d(x, *window, layer.get("ceil_mode", False), layer.get("count_include_pad", True))
    if kind == "global_avg_pool":
        return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
    if kind == "flatten":
        return torch.flatten(x, 1)
    if kind == "slice_pad":
        return slice_pad(x, layer)
    raise ValueError(f"{layer['name']}: a layer of kind {kind} is not known here")


class Network(nn.Module):
    """The network of a file. Its modules bear the names of the layers, with '/' for '.'."""

    def __init__(self, text):
        super().__init__()
        self.layers = named(text["layers"])
        self.output = text.get("output", self.layers[-1]["name"])
        self.modules_of = nn.ModuleDict()
        last_reader = {name: i for i, layer in enumerate(self.layers) for name in layer["inputs"]}
        last_reader.pop(self.output, None)
        self.ends = [[name for name, last in last_reader.items() if last == i] for i in range(len(self.layers))]
        self.places = [self.may_overwrite(i) for i in range(len(self.layers))]
        x = torch.zeros(1, text["input"].get("channels", 3), *[side_of(text)] * 2)
        with torch.no_grad():
            self.run(x, lambda layer, value: self.add(layer, value, text.get("classes", 1000)))

    def may_overwrite(self, i):
        """Whether layer i is the only reader of its input, which its maker does not need for its own gradient."""
        name = self.layers[i]["inputs"][0]
        readers = sum(layer["inputs"].count(name) for layer in self.layers)
        maker = next((layer for layer in self.layers if layer["name"] == name), None)
        return readers == 1 and maker is not None and maker["kind"] in ("conv2d", "batch_norm", "linear", "add")

    def add(self, layer, x, classes):
        module = module_of(layer, x, classes)
        if module is not None:
            self.modules_of[layer["name"].replace(".", "/")] = module.eval()

    def run(self, x, before):
        values = {"": x}
        del x
        for layer, ends, in_place in zip(self.layers, self.ends, self.places):
            inputs = [values[name] for name in layer["inputs"]]
            if before:
                before(layer, inputs[0])
            for name in ends:
                del values[name]
            key = layer["name"].replace(".", "/")
            value = self.modules_of[key](inputs[0]) if key in self.modules_of else apply(layer, inputs, in_place)
            del inputs
            values[layer["name"]] = value
            del value
        return values[self.output]

    def forward(self, x):
        return self.run(x, None)


def named(layers):
    """The layers with the names and inputs that a file may leave out."""
    result, counts, last = [], {}, ""
    for layer in layers:
        kind = layer["kind"]
        counts[kind] = counts.get(kind, 0) + 1
        result.append({"name": f"{kind}{counts[kind]}", "inputs": [last], **layer})
        last = result[-1]["name"]
    return result


def place_of(name):
    """The name in Convolt, and in torchvision, of an entry of a Network's state."""
    return name.removeprefix("modules_of.").replace(".module.", ".").replace(".factors", "").replace("/", ".")


def independent(model, classes):
    """The same network by other hands."""
    if model == "airbench94":
        sys.path.insert(0, os.path.join(ROOT, "tools", "golden"))
        from airbench import CifarNet
        return CifarNet(classes)
    import torchvision
    return getattr(torchvision.models, model)(weights=None)


def compare(model):
    """The largest difference of logits in evaluation, with the other network's weights under the same names; and how many parameters."""
    text = network_text(model)
    torch.manual_seed(0)
    theirs, ours = independent(model, text.get("classes", 1000)).eval(), Network(text).eval()
    for name, parameter in theirs.named_parameters():
        if name.endswith("layer_scale"):  # 1e-6 would hide what is behind it
            nn.init.ones_(parameter)
    names = {name: place_of(name) for name in ours.state_dict()}
    weights = theirs.state_dict()
    if sorted(names.values()) != sorted(weights):
        raise ValueError(f"{model}: other parameters than expected: {sorted(set(names.values()) ^ set(weights))[:6]}")
    ours.load_state_dict({name: weights[place] for name, place in names.items()})
    x = torch.randn(2, 3, side_of(text), side_of(text))
    with torch.no_grad():
        expected, found = theirs(x), ours(x)
    return ((expected - found).abs().max() / expected.abs().max()).item(), sum(p.numel() for p in ours.parameters())


def main():
    failed = False
    for model in sys.argv[1:] or ["resnet18", "resnet50", "mobilenet_v2", "convnext_tiny", "airbench94"]:
        difference, parameters = compare(model)
        failed = failed or not difference < 1e-4
        print(f"{model}: {parameters} parameters, logits differ by {difference:.1e} of the largest")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
