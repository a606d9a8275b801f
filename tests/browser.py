"""The Chromium that the browser tests drive: python -m tests.browser finds one, or brings one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_APT_MINUTES, _PLAYWRIGHT_MINUTES = 10, 10


def find_browser() -> str | None:
    """Give the path of a Chromium that starts: the system's, or else Playwright's own."""
    for name in _NAMES:
        path = shutil.which(name)
        if path and _starts(path):
            return path
    path = _playwrights_own()
    return path if path and _starts(path) else None


def bring_browser() -> str | None:
    """Install one, by apt where that works, by Playwright elsewhere; None if neither does."""
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
            _run(["apt-get", "-q", *arguments], minutes=_APT_MINUTES, environment=environment)
        if found := find_browser():
            return found
    _run([sys.executable, "-m", "playwright", "install", "chromium"], minutes=_PLAYWRIGHT_MINUTES)
    return find_browser()


def main() -> int:
    """Say what was found; where a browser must be there (in CI), fail without one."""
    if path := find_browser():
        print(f"The browser tests use {path}.")
        return 0
    print("The browser tests need Chromium, and none is here: installing it.", flush=True)
    if path := bring_browser():
        print(f"The browser tests use {path}.")
        return 0
    print(
        "No Chromium can be had, neither from apt nor from Playwright: "
        "the browser tests are skipped; install chromium or Google Chrome to run them.",
        file=sys.stderr,
    )
    return 1 if os.environ.get("CI") else 0


def _playwrights_own() -> str | None:
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


def _starts(path: str) -> bool:
    """Ubuntu's chromium can be a stub that only tells how to install the real one."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def _run(command: list[str], *, minutes: int, environment: dict[str, str] | None = None) -> None:
    """Run an installer; whether it worked is seen by looking for the browser afterwards."""
    try:
        subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, timeout=60 * minutes, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"{' '.join(command)} took more than {minutes} minutes and was stopped.")


if __name__ == "__main__":
    sys.exit(main())
