"""What the README says of speed on a GPU follows the figures."""

from typing import Any

from bench.readme_gpu import NONE, gpu, gpu_training

NAMES = ("sre", "sre_conv", "resnet18")
CIRCUMSTANCES = {
    "device": "NVIDIA X1", "processor": "A CPU", "versions": {"torch": "2.11.0"},
    "date": "2026-11-26",
}  # fmt: skip


def row(task: str, batch: int, seconds: tuple[float, float, float], precision="float32") -> Any:
    ours, authors, plain = seconds
    return {
        "task": task,
        "precision": precision,
        "batch": batch,
        "layers_by_band_sums": 16,
        "peak_memory_mb": {"sre": 256.4, "sre_conv": 995.0, "resnet18": 1939.0},
        "seconds": {n: {"median": s} for n, s in zip(NAMES, seconds, strict=True)},
        "authors_over_ours": {"median": authors / ours},
        "resnet18_over_ours": {"median": plain / ours},
        "shares": {
            "sre": {"of_multiply_adds": 0.31, "of_bandwidth": 0.03},
            "resnet18": {"of_multiply_adds": 0.45, "of_bandwidth": 0.02},
        },
    }


def as_graph(found: Any, seconds: tuple[float, float, float]) -> Any:
    ours, authors, plain = seconds
    found["seconds"] |= {
        f"{n}, CUDA graph": {"median": s} for n, s in zip(NAMES, seconds, strict=True)
    }
    return found | {
        "authors_over_ours_as_graphs": {"median": authors / ours},
        "resnet18_over_ours_as_graphs": {"median": plain / ours},
    }


def made(*rows: Any) -> dict[str, Any]:
    titles = dict(zip(NAMES, ("Ours", "Theirs", "ResNet"), strict=True))
    return {**CIRCUMSTANCES, "titles": titles, "rows": list(rows)}


def test_wins_and_losses_are_counted():
    small = as_graph(row("forward", 1, (0.004, 0.002, 0.001)), (0.001, 0.002, 0.0005))
    text = gpu(made(small, row("forward", 1024, (0.035, 0.5, 0.05))))
    assert (
        "Of 3 comparisons with sre-conv, this library is faster in 2, at least twice as fast in 2, "
        "and slower in 1. It is ahead of ResNet-18 in 1 (forward in single precision at batch "
        "1,024)."
    ) in text
    assert (
        "| Forward, single precision | 1 | 4.00 ms | 2.00 ms | 1.00 ms | 0.50 x | 0.25 x |" in text
    )
    assert "| Forward, single precision, CUDA graph | 1 | 1.00 ms | 2.00 ms |" in text
    assert "single precision: 31 % and 3 %, ResNet-18 45 % and 2 % (batch 1,024)" in text
    assert (
        "of sre-conv and ResNet-18: forward, single precision, batch 1,024: 256 / 995 / 1,939."
        in text
    )
    assert "NVIDIA X1, A CPU, PyTorch 2.11.0, 2026-11-26; from `bench/results/gpu.json`." in text


def test_no_win_is_made_up():
    text = gpu(made(row("forward", 1, (0.004, 0.002, 0.001))))
    assert "faster in 0, at least twice as fast in 0, and slower in 1" in text
    assert "It is ahead of ResNet-18 in 0." in text


def test_what_a_run_that_was_cut_short_lacks_is_told():
    whole = [
        row("forward", batch, (1.0, 1.0, 1.0), precision)
        for precision in ("float32", "tf32", "bfloat16")
        for batch in (1, 36)
    ]
    assert "Not measured" not in gpu(made(*whole))
    assert "Not measured, as the run was cut short: forward, bfloat16, batch 36." in gpu(
        made(*whole[:-1])
    )


def test_epochs_that_were_not_run_are_said_to_be_reckoned():
    run = {"epochs": 4, "asked_epochs": 100, "asked_s": 252.0, "epoch_s": {"median": 2.5}}
    step = {"batch": 128, "ms": {"float32": {"median": 31.2}, "bfloat16": {"median": 25.0}}}
    models = ("sre_resnet18", "gmr_resnet18", "resnet18")
    found = {
        **CIRCUMSTANCES, "dataset": "bloodmnist", "steps": dict.fromkeys(models, step),
        "runs": dict.fromkeys(models, run),
    }  # fmt: skip
    evaluated = {
        "dataset": "bloodmnist", "first": {"took_s": 13.5},
        "whole": {"images": 3421, "networks": 3, "angles": 36, "took_s": 8.2},
    }  # fmt: skip
    text = gpu_training(found, evaluated)
    assert "| SRE | 31.2 ms | 25.0 ms | 2.5 s | 252 s |" in text
    assert (
        "All three together take 12.6 minutes for 100 epochs of `bloodmnist`, at the pace" in text
    )
    assert "takes 8.2 s, the first time 13.5 s (`bloodmnist`)" in text
    found["runs"] = dict.fromkeys(models, run | {"epochs": 100})
    assert "at the pace" not in gpu_training(found, evaluated)


def test_without_a_gpu_it_says_so():
    assert gpu(None) == gpu_training(None, None) == NONE
