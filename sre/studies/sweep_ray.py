"""The runs of a sweep side by side, on this machine or a cluster of Ray's."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from sre.devices import open_device
from sre.errors import SettingError, SREError
from sre.studies.sweep import SweepRun
from sre.studies.sweep_run import Began, Done, Failed, Skipped, Within, do_run, sentence_of

NEEDS_RAY = (
    "runs side by side need Ray, which is not installed; run pip install 'sre-lab[sweep]', or "
    "give --no-ray for one run after the other"
)
_SEE_TO = (
    "see to the address, and to RAY_AUTH_MODE=token where the cluster asks for one, as it may from "
    "Ray 2.59 on, or "
)
_STORE_BYTES = 100_000_000  # the answers are small: the images are read by each run itself


def run_side_by_side(
    runs: Sequence[SweepRun],
    *,
    data_dir: Path,
    output: Path,
    device: str,
    threads: int,
    address: str | None = None,
) -> Iterator[Done | Skipped | Failed]:
    """Do as many runs at once as there are cores or GPUs; events come as runs end.

    Args: threads: cores of a run
        address: of a cluster, whose machines must share the two folders and have this package;
            None: this machine
    Raises: SettingError: Ray is not installed, or the cluster does not answer
    """
    try:
        import ray  # noqa: PLC0415 - an extra, needed here alone
    except ImportError as error:
        raise SettingError(NEEDS_RAY) from error
    is_here = address is None
    try:
        ray.init(
            address=address or "local",
            include_dashboard=False if is_here else None,
            object_store_memory=_STORE_BYTES if is_here else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SettingError(
            f"cannot start with Ray at {address or 'this machine'}: {sentence_of(error)}; "
            f"{_SEE_TO if address else ''}give --no-ray"
        ) from error
    is_gpu = device.startswith("cuda")
    try:
        if not is_gpu and threads > (most := int(ray.cluster_resources().get("CPU", 0))):
            raise SettingError(f"no run can have {threads} threads of {most} cores; give fewer")
        # Ray shows each run the one GPU that is its own.
        work = ray.remote(num_cpus=threads, num_gpus=int(is_gpu), max_retries=1)(_work)
        folders = data_dir.absolute(), output.absolute()
        waiting = {
            work.remote(run, *folders, "cuda" if is_gpu else device, threads): run for run in runs
        }
        while waiting:
            (ready,), _ = ray.wait(list(waiting))
            run = waiting.pop(ready)
            try:
                yield ray.get(ready)
            except ray.exceptions.RayError as error:
                yield Failed(run, sentence_of(error))
    finally:
        ray.shutdown()


def _work(
    run: SweepRun, data_dir: Path, output: Path, device: str, threads: int
) -> Done | Skipped | Failed:
    torch.set_num_threads(threads)
    open_device(device)
    last: Done | Skipped | Failed = Failed(run, "it ended without a word; start the sweep again")
    try:
        for event in do_run(run, data_dir=data_dir, output=output, device=device):
            if not isinstance(event, Began | Within):
                last = event
    except SREError as error:
        return Failed(run, sentence_of(error))
    return last
