"""Weights, statistics and pictures as a function of (name, index), which tests/graph/network_steps_test.cpp computes too, so that none
are shipped."""
import numpy as np


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


def values(name, shape, gain, bias=0):
    """Weights of matrices and filters have the squared gain / fan-in / 3 as variance; biases lie around `bias`."""
    u = uniform(name, int(np.prod(shape))).reshape(shape)
    if name.endswith("layer_scale"):
        return u * np.float32(0.25)
    if len(shape) > 1:
        return u * np.float32(np.sqrt(gain / np.prod(shape[1:])))
    if name.endswith("running_var") or name.endswith("weight"):
        return np.float32(1) + u * np.float32(0.25)
    return np.float32(bias if name.endswith("bias") else 0) + u * np.float32(0.1)


def numbers(tensor):
    return [f"{float(v):.8g}" for v in tensor.detach().flatten()]
