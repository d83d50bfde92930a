"""Pictures of an image folder to normalised crops on the CPU: Convolt's loader beside PyTorch's with torchvision, in one run.

    python benchmarks/peers/cpu_loader.py --data-path FOLDER [--rounds 5] [--threads 2] [--pictures 1920] > result.json

Wants PyTorch and torchvision in this Python and build/cpu/convolt. Both crop at random to 224 (area 0.08 to 1), mirror, and normalise to f32. torchvision:
transforms v2 on tensors by decode_jpeg, which is the quickest of its ways; a DataLoader for each number of workers, kept over the rounds. What its workers have
decoded ahead is taken before a window begins. The ratio of a round takes the best of these. FOLDER has train/<class>/*.jpg. Convolt with one thread is run too, on one core, to see
how it scales.
"""
import argparse
import json
import os
import sys
import time

import torch
import torchvision
from torchvision.transforms import v2

from convolt_program import ROOT, bench
from intervals import ratios, summary

CONVOLT = os.environ.get("CONVOLT", os.path.join(ROOT, "build", "cpu", "convolt"))
BATCH = 64


class Folder(torch.utils.data.Dataset):
    def __init__(self, path):
        root = os.path.join(path, "train")
        self.files = [(os.path.join(root, c, f), label) for label, c in enumerate(sorted(os.listdir(root))) for f in sorted(os.listdir(os.path.join(root, c)))]
        self.transform = v2.Compose([
            v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        ])

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        path, label = self.files[i]
        picture = torchvision.io.decode_jpeg(torchvision.io.read_file(path), mode=torchvision.io.ImageReadMode.RGB)
        return self.transform(picture), label


def forever(loader):
    while True:
        yield from loader


class Peer:
    """Batches of one number of workers."""
    def __init__(self, path, workers):
        loader = torch.utils.data.DataLoader(Folder(path), batch_size=BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0)
        self.batches = forever(loader)
        self.ready = 2 * workers + 1  # what workers have decoded ahead while nobody asked

    def seconds_a_picture(self, pictures):
        for _ in range(self.ready):
            next(self.batches)
        count = pictures // BATCH
        start = time.perf_counter()
        for _ in range(count):
            next(self.batches)
        return (time.perf_counter() - start) / (count * BATCH)


def convolt(path, threads, pictures):
    """Seconds a picture, the decode threads and the compute threads as many as cores."""
    arguments = ["loader", "--data-path", path, "--model", "resnet18", "-b", BATCH, "-j", threads, "--threads", threads, "--crops", "--device", "cpu",
                 "--batches", max(1, pictures // BATCH // 3), "--samples", 3, "--seconds", 600]
    (row,) = bench(arguments, 1800, CONVOLT)["rows"]
    return row["timings"]["batch"]["ms_median"] / 1e3 / BATCH


def on_cores(cores, work):
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_cores)[:cores])
    try:
        return work()
    finally:
        os.sched_setaffinity(0, all_cores)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-path", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=1920)
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    peers = [Peer(o.data_path, workers) for workers in range(o.threads + 2)]
    ours, one_core, theirs = [], [], {str(i): [] for i in range(len(peers))}
    for _ in range(o.rounds):
        ours.append(convolt(o.data_path, o.threads, o.pictures))
        one_core.append(on_cores(1, lambda: convolt(o.data_path, 1, o.pictures)))
        for workers, peer in enumerate(peers):
            theirs[str(workers)].append(peer.seconds_a_picture(o.pictures))
    json.dump({
        "torch": torch.__version__, "torchvision": torchvision.__version__, "threads": o.threads, "batch": BATCH, "pictures": o.pictures,
        "convolt_per_second": summary([1 / s for s in ours]), "convolt_per_second_one_core": summary([1 / s for s in one_core]),
        "scaling": summary([one / all_cores / o.threads for one, all_cores in zip(one_core, ours)]),
        "torchvision_per_second": {workers: summary([1 / s for s in times]) for workers, times in theirs.items()},
        "ratio": summary(ratios(ours, theirs))
    }, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
