"""Tiny untrained networks with cards, in memory and on disk."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from sre.checkpoints import CheckpointCard, build_untrained, save_checkpoint
from sre.models import count_parameters
from sre.resnet import ResNet

CARD = CheckpointCard(
    dataset="digits",
    classes=tuple("0123456789"),
    is_multi_label=False,
    in_channels=1,
    side_px=28,
    model="sre_resnet18",
    width=4,
    kernel_sizes=(9, 9, 5, 5),
    rotates_in_training=False,
    protocol="disc",
    parameters=0,
    multiply_adds=12_345,
    config={"epochs": 3, "learning_rate": 2e-3, "rotate": False},
    command="python -m sre train digits sre_resnet18 --width 4",
    split_sizes={"train": 1197, "val": 200, "test": 400},
    versions={"torch": "2.8"},
    test={"accuracy_at_0": 0.5, "auc_at_0": None, "angles": 36},
)


def tiny_network(card: CheckpointCard = CARD, *, seed: int = 0) -> ResNet:
    """Build what a card describes, untrained, in eval mode, whose batch-norms do something."""
    torch.manual_seed(seed)
    model = build_untrained(card)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    nn.init.normal_(model.head.weight)  # so that classes differ
    return model.eval()


def write_checkpoint(folder: Path, *, seed: int = 0, **changes: object) -> Path:
    """Write a tiny network with this card, changed, under its usual name."""
    card = replace(CARD, **changes)
    model = tiny_network(card, seed=seed)
    card = replace(card, parameters=count_parameters(model))
    path = folder / card.file_name
    save_checkpoint(model, card, path)
    return path
