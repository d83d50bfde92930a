"""Writes the name and shape of every parameter and running statistic of torchvision's networks, one table for each.

    python tools/golden/torchvision_parameters.py tests/graph/golden

Recorded with torchvision 0.29. num_batches_tracked is left out: it is a number of the checkpoint, not a tensor of the network.
"""
import pathlib
import sys

import torchvision

for model in "resnet18 resnet34 resnet50 resnet101 resnet152 mobilenet_v2".split():
    state = getattr(torchvision.models, model)(weights=None).state_dict()
    rows = [f"{name}\t{'x'.join(map(str, value.shape))}" for name, value in state.items() if not name.endswith("num_batches_tracked")]
    (pathlib.Path(sys.argv[1]) / f"{model}.tsv").write_text("\n".join(["name\tshape", *rows]) + "\n")
