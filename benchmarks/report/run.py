"""Does the report of 5,000 domains stay small, quick and usable, and can everybody read it?

python benchmarks/report/run.py
python benchmarks/report/run.py --small runs/forty    # pictures of both reports, too
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import axe_core_python
import typer
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from browser import Browser, open_browser
from summary import figure, write_summary

from graft.core.files import open_path
from graft.report.page.report import write_report

HERE = Path(__file__).resolve().parent
SEED = 1
COMMAND = "python benchmarks/report/run.py"
TIMED_LOADS = 5
PHONE, DESK = (390, 844), (1280, 900)
PICTURED: dict[str, dict[str, Any]] = {  # what a reader may hold, with the width in CSS pixels
    "desk": {"width": 1400, "height": 900},
    "dark": {"width": 1400, "height": 900, "scheme": "dark"},
    "phone": {"width": 390, "height": 844, "phone": True},
    "print": {"width": 794, "height": 1123, "medium": "print"},
}  # fmt: skip
AXE = Path(axe_core_python.__file__).parent / "axe.min.js"


def main(
    domains: Annotated[int, typer.Option(help="Domains of the run.")] = 5000,
    runs: Annotated[Path, typer.Option(help="Where the run goes; one that is there is kept.")] = (
        Path("runs/report")
    ),
    workers: Annotated[int, typer.Option(help="Ray workers.")] = 2,
    pictures: Annotated[
        Path | None, typer.Option(help="Also take pictures of every view, into this folder.")
    ] = None,
    small: Annotated[
        Path | None,
        typer.Option(help="A small run's folder: results/ gets pictures of both reports."),
    ] = None,
) -> None:
    """Simulate, write the report, load it in headless Chromium, use it by keyboard alone."""
    folder = (runs / f"run-{domains}").absolute()
    if not (folder / "results.parquet").exists():
        _simulate(folder, domains, workers)
    start_s = time.process_time()
    page = write_report(open_path(str(folder)))
    writing_s = time.process_time() - start_s
    size_mb = (folder / "report.html").stat().st_size / 1e6
    with open_browser() as browser:
        found = measure(browser, f"file://{page}", domains)
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            take_pictures(browser, f"file://{page}", pictures)
        faults = find_faults(browser, f"file://{page}")
        if small is not None:
            other = write_report(open_path(str(small.absolute())))
            faults += find_faults(browser, f"file://{other}")
            for address in (f"file://{other}", f"file://{page}"):
                picture_whole(browser, address)
    name = f"report/{domains}-domains"
    figures = {
        f"{name}/size": figure(size_mb, "MB", "below 10", COMMAND, [SEED]),
        f"{name}/load": figure(
            found["load_s"], f"s to the load event, median of {TIMED_LOADS}, headless Chromium",
            "below 3", COMMAND, [SEED],
        ),
        f"{name}/slowest_load": figure(
            found["slowest_s"], "s, the slowest of them", "below 3", COMMAND, [SEED]
        ),
        f"{name}/search": figure(
            found["search_ms"], "ms from a letter typed to the table drawn", "below 100",
            COMMAND, [SEED],
        ),
        f"{name}/domain": figure(
            found["domain_ms"], "ms from the key pressed to a domain's view drawn", "below 300",
            COMMAND, [SEED],
        ),
        f"{name}/requests": figure(
            found["requests"], "requests beside the page's own file", "0", COMMAND, [SEED]
        ),
        f"{name}/faults": figure(
            len(faults), "violations that axe-core finds on overview and domain view, desk and "
            "phone, light and dark", "0", COMMAND, [SEED],
        ),
        f"{name}/elements": figure(
            found["elements"], "elements on the page", None, COMMAND, [SEED]
        ),
        f"{name}/writing": figure(writing_s, "CPU s to write it", None, COMMAND, [SEED]),
    }  # fmt: skip
    for key, entry in figures.items():
        print(f"{key}: {entry['value']} {entry['unit']}")
    print("\n".join(faults))
    write_summary(HERE / "results", figures)


def measure(browser: Browser, address: str, domains: int) -> dict[str, Any]:
    """Loads timed by the browser's own clock; then search, Tab, Enter, back: all must work."""
    browser.look_as(*DESK)
    loads_s = []
    for _ in range(TIMED_LOADS):
        browser.open("about:blank")
        browser.open(address)
        timing = "performance.getEntriesByType('navigation')[0].loadEventEnd"
        loads_s.append(browser.evaluate(timing) / 1000)
    status = "document.querySelector('#domain-table [role=status]').textContent"
    told = browser.evaluate(status)
    assert told.endswith(f"of {domains:,}"), f"got {told!r}, wanted every one of {domains} domains"
    for width, height in (DESK, PHONE):
        browser.look_as(width, height, phone=width == PHONE[0])
        wide = browser.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"got a page of {wide} px, wanted {width}"
    browser.look_as(*DESK)
    elements = browser.evaluate("document.getElementsByTagName('*').length")
    search_ms = browser.evaluate(
        "(() => { const box = document.querySelector('input[type=search]'); box.focus();"
        "const start = performance.now(); box.value = '1';"
        "box.dispatchEvent(new Event('input', {bubbles: true})); document.body.offsetHeight;"
        "return performance.now() - start; })()"
    )
    for _ in range(60):
        browser.press("Tab")
        if browser.evaluate("document.activeElement.matches('#domain-table tbody a')"):
            break
    name = browser.evaluate("document.activeElement.textContent")
    browser.evaluate(
        "window.addEventListener('keydown', () => { window.pressed = performance.now(); }, true);"
        "window.addEventListener('hashchange', () => { document.body.offsetHeight;"
        "window.drawn = performance.now(); })"
    )
    browser.press("Enter")
    shown = browser.evaluate(
        "new Promise((done) => setTimeout(() => done(document.querySelector('#domain h1')"
        "?.textContent), 300))"
    )
    assert shown == name, f"got the view of {shown}, wanted {name} by keyboard"
    domain_ms = browser.evaluate("window.drawn - window.pressed")
    browser.evaluate("history.back()")
    back = browser.evaluate(
        "new Promise((done) => setTimeout(() => done(!document.getElementById('overview').hidden"
        "&& document.querySelector('input[type=search]').value), 300))"
    )
    assert back == "1", "got another view, wanted the search that was left"
    others = [each for each in browser.requests if each not in (address, "about:blank")]
    others = [each for each in others if each.split("#")[0] != address]
    return {
        "load_s": median(loads_s),
        "slowest_s": max(loads_s),
        "search_ms": search_ms,
        "domain_ms": domain_ms,
        "requests": len(others),
        "elements": elements,
    }


def find_faults(browser: Browser, address: str) -> list[str]:
    """What axe-core says against the page and a domain's view, as rule and place."""
    faults = []
    for kind, look in PICTURED.items():
        browser.look_as(**look)
        browser.open(address)
        browser.evaluate(AXE.read_text("utf-8") + ";0")
        for view in ("overview", "domain"):
            if view == "domain":
                browser.evaluate("document.querySelector('#domain-table tbody a').click()")
                browser.evaluate("new Promise((done) => setTimeout(done, 300))")
            found = browser.evaluate(
                "axe.run().then((all) => all.violations.flatMap((rule) => "
                "rule.nodes.map((node) => `${rule.id}: ${node.target} ${node.html}`)))"
            )
            faults += [f"{kind} {view} {each[:300]}" for each in found]
    return faults


def picture_whole(browser: Browser, address: str, folder: Path = HERE / "results") -> None:
    """The whole page as each kind of reader sees it, in few colours."""
    for kind, look in PICTURED.items():
        browser.look_as(**look)
        browser.open(address)
        count = browser.evaluate(
            "JSON.parse(document.getElementById('data').textContent).domains.length"
        )
        path = folder / f"{count}-domains-{kind}.png"
        browser.picture(path, whole=True)
        few = Image.open(path).convert("RGB").quantize(32, dither=Image.Dither.NONE)
        few.save(path, optimize=True)


def take_pictures(browser: Browser, address: str, folder: Path) -> None:
    """Overview and a target domain's view, at desk and phone width, light and dark."""
    busiest = (  # the target domain that taught most
        "(() => { const data = JSON.parse(document.getElementById('data').textContent);"
        "const taught = data.domains.map(() => 0);"
        "data.rows.sources.forEach((each) => each.forEach((domain) => { taught[domain] += 1; }));"
        "data.visits.round.forEach((round, visit) => {"
        "if (round === 0) taught[data.visits.domain[visit]] = -1; });"
        "return data.domains[taught.indexOf(Math.max(...taught))]; })()"
    )
    for width, height in (DESK, PHONE):
        for scheme in ("light", "dark"):
            kind = f"{'phone' if width == PHONE[0] else 'desk'}-{scheme}"
            browser.look_as(width, height, scheme=scheme, phone=width == PHONE[0])
            browser.open(address)
            browser.picture(folder / f"overview-{kind}.png", whole=True)
            name = json.dumps(browser.evaluate(busiest))
            browser.evaluate(f"location.hash = 'domain=' + encodeURIComponent({name})")
            browser.evaluate("new Promise((done) => setTimeout(done, 300))")
            browser.picture(folder / f"domain-{kind}.png", whole=True)


def _simulate(folder: Path, domains: int, workers: int) -> None:
    command = [
        str(Path(sys.executable).with_name("graft")), "simulate", "--engine", "block",
        "--domains", str(domains), "--rounds", "4", "--seed", str(SEED),
        "--set", "training.max_steps=3", "--set", 'comparisons=["label-only"]',
        "--workers", str(workers), "--out", str(folder),
    ]  # fmt: skip
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    typer.run(main)
