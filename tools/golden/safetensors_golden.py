#!/usr/bin/env python3
"""Writes tests/io/golden/python.safetensors, in the root of the repository; made with safetensors 0.8.0 and torch 2.

The package writes the two metadata entries in either order.
"""
import torch
from safetensors.torch import save_file

tensors = {
    "conv.weight": torch.arange(-3, 3, dtype=torch.float32).reshape(2, 1, 3) / 4,
    "half": torch.tensor([1.0, -0.5, 65504.0, 5.9604645e-08, float("inf")], dtype=torch.float16),
    "brain": torch.tensor([1.0, -3.140625, 3.3895313892515355e38], dtype=torch.bfloat16),
    "double": torch.tensor([0.1, -1e300], dtype=torch.float64),
    "bn.num_batches_tracked": torch.tensor(7, dtype=torch.int64),
    "labels": torch.tensor([-1, 2], dtype=torch.int32),
    "bytes": torch.tensor([0, 128, 255], dtype=torch.uint8),
    "empty": torch.zeros(0, 4),
}
save_file(tensors, "tests/io/golden/python.safetensors", metadata={"format": "pt", "epoch": "3"})
