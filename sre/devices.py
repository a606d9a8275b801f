"""The device that networks run on: it is there, and computes in full."""

import torch


def open_device(name: str) -> None:
    """Make sure that a device answers, and that it computes in single precision where it says so.

    On GPUs with tensor cores PyTorch lets convolutions round what they multiply to 10 bits (TF32).
    Then an image and the same image turned by 90 degrees get logits that differ in the third digit,
    and a network that is exact no longer seems so. Training is in bfloat16 there in any case.

    Raises: RuntimeError, AssertionError: this machine has no such device

    >>> open_device("cpu")
    """
    torch.empty(1, device=name).cpu()
    if name.startswith("cuda"):
        torch.backends.cudnn.allow_tf32 = False
