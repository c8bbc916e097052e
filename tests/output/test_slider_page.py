"""`topk --save FILE.html`: in a browser, its sliders give the probabilities of the options."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUERY = ("topk", "1+1=", "-k", "40", "--dtype", "float32")
OFF = {"temperature": "1", "top-k": "0", "top-p": "1", "min-p": "0"}


def probabilities_on(page: Path, settings: dict[str, str], profile: Path) -> dict[int, float]:
    """Return the probability of each token that the page shows, by its id."""
    fragment = "&".join(f"{name}={value}" for name, value in settings.items())
    browser = subprocess.run(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--disable-background-networking", f"--user-data-dir={profile}"),
            f"{page.as_uri()}#{fragment}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r'data-id="(\d+)" data-prob="([^"]+)"', browser.stdout)
    return {int(token_id): float(prob) for token_id, prob in found}


@pytest.fixture(scope="module")
def page(smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "next.html"
    assert run(*QUERY, "--save", str(path)).exit_code == 0
    return path


@pytest.mark.skipif(CHROMIUM is None, reason="it needs Chromium")
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": "1.5"},
        {"temperature": "0.5", "top-k": "3"},
        {"temperature": "2", "top-p": "0.3"},
        {"temperature": "1.2", "min-p": "0.05"},
        {"temperature": "0.8", "top-k": "8", "top-p": "0.9", "min-p": "0.08"},
    ],
    ids=str,
)
def test_sliders_give_the_probabilities_of_the_options(
    settings: dict[str, str], page: Path, tmp_path: Path
) -> None:
    settings = OFF | settings
    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    expected = {
        c["id"]: c["sampled_prob"] for c in json.loads(run(*QUERY, *options, "--json").stdout)
    }
    assert probabilities_on(page, settings, tmp_path) == pytest.approx(expected, abs=2e-5)


def test_the_page_needs_no_other_files(page: Path) -> None:
    assert not re.search(r"https?:|src=|@import|url\(", page.read_text("utf-8"))
