"""Where no Chromium can be had, make says so, and CI does not pass without the browser tests."""

import pytest

from tests import browser


@pytest.mark.parametrize(("variables", "code"), [({}, 0), ({"CI": "true"}, 1)])
def test_without_any_browser_one_sentence(variables, code, monkeypatch, capsys):
    monkeypatch.delenv("CI", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(browser, "find_browser", lambda: None)
    monkeypatch.setattr(browser, "bring_browser", lambda: None)
    assert browser.main() == code
    assert "the browser tests are skipped; install chromium" in capsys.readouterr().err


def test_program_that_does_not_start_is_no_browser(tmp_path, monkeypatch):
    stub = tmp_path / "chromium"
    stub.write_text("#!/bin/sh\necho 'install the snap' >&2\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setattr(browser.shutil, "which", lambda name: str(stub))
    monkeypatch.setattr(browser, "_playwrights_own", lambda: None)
    assert browser.find_browser() is None


def test_system_s_browser_is_taken_first(tmp_path, monkeypatch):
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\necho Chromium 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert browser.find_browser() == str(program)
