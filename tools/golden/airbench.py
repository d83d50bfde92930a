"""K. Jordan's CifarNet (airbench94_muon.py of github.com/KellerJordan/cifar10-airbench) in PyTorch, but that the logits are not divided by
256: Convolt's head starts that much smaller instead."""
from torch import nn


class Group(nn.Module):
    def __init__(self, channels, to):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, to, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(to, to, 3, padding=1, bias=False)
        self.norm1, self.norm2 = (nn.BatchNorm2d(to, eps=1e-12, momentum=0.4) for _ in range(2))
        self.pool, self.activation = nn.MaxPool2d(2), nn.GELU()

    def forward(self, x):
        x = self.activation(self.norm1(self.pool(self.conv1(x))))
        return self.activation(self.norm2(self.conv2(x)))


class CifarNet(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.layers = nn.Sequential(nn.GELU(), Group(24, 64), Group(64, 256), Group(256, 256), nn.MaxPool2d(3))
        self.head = nn.Linear(256, classes, bias=False)

    def forward(self, x):
        return self.head(self.layers(self.whiten(x)).flatten(1))
