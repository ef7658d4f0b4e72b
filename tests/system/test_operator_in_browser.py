"""The operator's page in a real browser: live, readable for everybody, on a desk and on a phone."""

import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from commands import GRAFT, free_port, quiet_environment, wait_until
from small_deployment import make_server, one_round

BROWSER = Path(__file__).resolve().parents[2] / "benchmarks" / "report"
axe_core_python = pytest.importorskip("axe_core_python")
pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("google-chrome")), reason="no browser here"
)
AXE = Path(axe_core_python.__file__).parent / "axe.min.js"
FAULTS = "axe.run().then((all) => all.violations.map((rule) => rule.id))"
VIEWS = {
    "desk": {"width": 1400, "height": 900},
    "dark": {"width": 1400, "height": 900, "scheme": "dark"},
    "phone": {"width": 390, "height": 844, "phone": True},
    "dark phone": {"width": 390, "height": 844, "phone": True, "scheme": "dark"},
}


@contextmanager
def served(server: Path) -> Iterator[str]:
    """The page's address, while the command runs."""
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    process = subprocess.Popen(
        [GRAFT, "deploy", "page", str(server), "--port", str(port)],
        env=quiet_environment(),
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_until(answers, "the page")
        yield address
    finally:
        process.terminate()
        process.wait(30)


def test_everybody_can_read_it_and_it_follows_the_server(tmp_path: Path) -> None:
    sys.path.insert(0, str(BROWSER))
    from browser import open_browser

    server = make_server(tmp_path, "ann", "bob")
    one_round(server, {"ann": None, "bob": "PolicyError"}, {"bob": "<img src=x onerror=alert(1)>"})
    with open_browser() as browser, ExitStack() as page:
        address = page.enter_context(served(server))
        for name, view in VIEWS.items():
            browser.look_as(**view)  # type: ignore[arg-type]
            browser.open(address)
            browser.evaluate(AXE.read_text("utf-8") + ";0")
            assert browser.evaluate(FAULTS) == [], name
            assert browser.evaluate("document.documentElement.scrollWidth") <= view["width"], name
            assert browser.evaluate("document.images.length") == 0  # a device's words are text
        browser.evaluate("document.querySelector('.scroll').focus()")
        one_round(server, {"cid": None})

        def shows(place: str, words: str) -> bool:
            return words in str(browser.evaluate(f"document.querySelector('{place}').innerText"))

        wait_until(lambda: shows("#keys", "2 of 2"), "the new round")
        assert browser.evaluate("document.activeElement.className") == "scroll"
        assert {url for url in browser.requests if not url.startswith(address)} <= {"data:,"}
        page.close()
        wait_until(lambda: shows("#link", "does not answer"), "the page's word on a lost server")
