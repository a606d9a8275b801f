"""Start the app: read the options, open the page, and load what is heavy once the page answers."""

import argparse
import importlib
import os
import re
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from sre.home import DATA, HOME

# Before Gradio is imported: it reports to nobody.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line and the environment settle."""

    data_dir: Path
    cache_dir: Path
    host: str
    port: int
    device: str
    trains: bool


class _Parser(argparse.ArgumentParser):
    """Refuses in one sentence, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def read_options(arguments: list[str]) -> Options:
    """Read and check the command line; a value that cannot work ends the program with code 2."""
    # Spaces and other hosts name the address in Gradio's own variables.
    host = "0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1"
    parser = _Parser(
        prog="app.py",
        description="Turn a medical image and watch three networks respond, in your browser.",
        epilog="Without any option the page opens on http://127.0.0.1:7860.",
    )
    parser.add_argument(
        "--data-dir",
        metavar="FOLDER",
        default=os.environ.get("SRE_DATA_DIR"),
        help="folder of MedMNIST files, and where downloads go; it must exist "
        f"(environment: SRE_DATA_DIR; default: {DATA}, made when needed)",
    )
    parser.add_argument(
        "--cache-dir",
        metavar="FOLDER",
        default=os.environ.get("SRE_CACHE_DIR"),
        help="folder where computed orbits are kept, so that they open at once; made when needed "
        f"(environment: SRE_CACHE_DIR; default: {HOME})",
    )
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        default=os.environ.get("GRADIO_SERVER_NAME", host),
        help="address to listen on; 0.0.0.0 lets other machines in "
        "(environment: GRADIO_SERVER_NAME; default: 127.0.0.1, on a Hugging Face Space 0.0.0.0)",
    )
    parser.add_argument(
        "--port",
        metavar="NUMBER",
        default=os.environ.get("GRADIO_SERVER_PORT", "7860"),
        help="port to listen on, from 1 to 65535 (environment: GRADIO_SERVER_PORT; default: 7860)",
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        default="cpu",
        help="where the networks run: cpu, cuda, cuda:1 and so on, or mps (default: cpu)",
    )
    parser.add_argument(
        "--no-train",
        action="store_true",
        default=os.environ.get("SRE_NO_TRAIN", "") not in ("", "0"),
        help="let nobody train on this server (environment: SRE_NO_TRAIN=1)",
    )
    given = parser.parse_args(arguments)
    try:
        options = Options(
            data_dir=_data_dir(given.data_dir),
            cache_dir=_cache_dir(given.cache_dir),
            host=given.host,
            port=_port(given.port),
            device=_device(given.device),
            trains=not given.no_train,
        )
        _check_address(options.host, options.port)
    except ValueError as problem:
        parser.error(str(problem))
    return options


def _data_dir(given: str | None) -> Path:
    folder = Path(given).expanduser() if given else DATA
    if given and not folder.is_dir():
        raise ValueError(f"--data-dir {given} is no folder; make it, or name another")
    return _made(folder, "--data-dir") if not given else folder


def _cache_dir(given: str | None) -> Path:
    return _made(Path(given).expanduser() if given else HOME, "--cache-dir")


def _made(folder: Path, flag: str) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{flag} {folder} cannot be made ({error.strerror}); name another folder"
        ) from error
    return folder


def _port(given: str) -> int:
    if not re.fullmatch(r"\d{1,5}", given) or not 1 <= int(given) <= 65535:
        raise ValueError(f"--port must be a number from 1 to 65535, got {given!r}; try 7860")
    return int(given)


def _device(given: str) -> str:
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", given):
        raise ValueError(f"--device must be cpu, cuda, cuda:N or mps, got {given!r}; try cpu")
    if given == "cpu":
        return given
    # Only torch knows what this machine has; on the CPU nobody waits for it here.
    devices = importlib.import_module("sre.devices")
    try:
        devices.open_device(given)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {given} is not on this machine; try cpu") from error
    return given


def _check_address(host: str, port: int) -> None:
    """Try the address, as Gradio's own message about it is long."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name != "nt":  # there it would let two programs share a port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise ValueError(f"--host {host} is no address of this machine; try 127.0.0.1") from error
    except OSError as error:
        raise ValueError(
            f"--host {host} --port {port} cannot be used ({error.strerror}); try another --port"
        ) from error


def main(arguments: list[str]) -> None:
    """Open the page, then warm up."""
    options = read_options(arguments)
    # After the options: a refusal must not wait for seconds.
    importlib.import_module("pages.startup").import_gradio()
    site, component, lab, theme, backend = (
        importlib.import_module(f"pages.{name}")
        for name in ("site", "component", "lab", "theme", "backend")
    )
    late_lab = backend.LateLab(
        data_dir=options.data_dir,
        cache_dir=options.cache_dir,
        checkpoints_dir=CHECKPOINTS,
        device=options.device,
    )
    trainer = backend.LateTrainer(
        data_dir=options.data_dir,
        cache_dir=options.cache_dir,
        device=options.device,
        is_allowed=options.trains,
    )
    page = site.build_site(late_lab, trainer=trainer)
    page.launch(
        server_name=options.host,
        server_port=options.port,
        theme=theme.make_theme(),
        head=component.head(),
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        run_history=False,
        max_file_size=lab.UPLOAD_LIMIT,
        allowed_paths=[],
        footer_links=["api", "settings"],
    )
    shown = "127.0.0.1" if options.host in {"0.0.0.0", "::"} else options.host
    sys.stdout.write(f"SRE Lab is open on http://{shown}:{options.port} (stop with Ctrl+C)\n")
    sys.stdout.flush()
    # PyTorch takes seconds to import; the page is there meanwhile and says that it loads.
    threading.Thread(target=late_lab.warm_up, name="warm-up", daemon=True).start()
    page.block_thread()


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """End at once: threads may be within PyTorch, which aborts where Python ends under it."""
    os._exit(0)


if __name__ == "__main__":
    # Not a KeyboardInterrupt: while the page opens, any import may be at work, or swallow it.
    signal.signal(signal.SIGINT, _leave)
    main(sys.argv[1:])
