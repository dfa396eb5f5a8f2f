"""A page in headless Chromium."""

import shutil
import subprocess
from pathlib import Path

import pytest


def browse(page: Path, script: str, tmp_path: Path, budget: int = 2000) -> tuple[str, str]:
    """
    :param page: An HTML file.
    :param script: A script to run at its end.
    :param tmp_path: A folder for the copy with the script.
    :param budget: Milliseconds of the browser's clock that it may take.
    :return: The document after that, and what the browser logged; the test is skipped without a browser
    """
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    copy = tmp_path / "page.html"
    copy.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={tmp_path}/profile"]
    done = subprocess.run(
        [browser, *options, f"--virtual-time-budget={budget}", "--dump-dom", f"file://{copy}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    return done.stdout, done.stderr
