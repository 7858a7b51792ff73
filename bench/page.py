"""What the operator's page costs, with 50 pools of 20 backends. Needs chromium, chromedriver.

usage: page.py [--rounds N] [--picture FILE]

A line each for: ms to render it in Python, octets, ms to load it in Chromium (from the start of the
navigation to the end of its load event), ms until JavaScript has taken over an update, and how far
the layout shifts meanwhile (CLS; 0 = not at all). All are medians of the rounds.

--picture writes a PNG of the page with a backend down and another one draining: bench/status.png,
which the README shows.
"""
import argparse
import pathlib
import statistics
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from test_server import (  # noqa: E402
    NOW, Browser, PageServer, large_view, lbdns, page_pool, page_row, troubled_view, until)

HEIGHT = 930             # pixels of the page that the picture shows: it is 150 KB at most
PICTURE_MAX = 150_000    # octets
LOADED = """
const [entry] = performance.getEntriesByType("navigation");
return entry.loadEventEnd - entry.startTime;
"""
UPDATED = """
const done = arguments[arguments.length - 1], begun = performance.now();
new MutationObserver(() => done(performance.now() - begun)).observe(
    document.body, {subtree: true, childList: true, characterData: true});
document.dispatchEvent(new Event("visibilitychange"));
"""


def update(view):
    """The view a bit later: each number of each backend is another one."""
    view["now"] += 2
    for number, pool in enumerate(view["pools"].values()):
        for at, row in enumerate(pool["rows"]):
            row["connections"] = (row["connections"] + 7 * number + at) % 1000
            row["age"] = (row["age"] + 0.3) % 1.2


def measure(browser, pages):
    """One round: ms to render, ms to load, ms to update, layout shift."""
    begun = time.perf_counter()
    lbdns.show_status_page(pages.view)
    rendered = 1000 * (time.perf_counter() - begun)
    browser.open(pages.url)
    loaded = until(lambda: browser.run(LOADED))
    update(pages.view)
    updated = browser.ask("POST", "/execute/async", script=UPDATED, args=[])
    time.sleep(0.2)  # a shift is reported with the next frame
    return rendered, loaded, updated, sum(browser.run("return shifts"))


def picture_view():
    """What the picture shows."""
    view = troubled_view()
    view["lbdns"] = lbdns.VERSION
    view["pools"].update({
        "db.example.com": page_pool(page_row(31, next=1.0, share=1.0, max=None), page_row(
            32, next=0.0, share=0.0, max=None, connections=0), policy="failover", ttl=10),
        "img.example.com": page_pool(*(
            page_row(1, address=[f"192.0.2.{at}", f"2001:db8::{at}"], share=1 / 8, next=1 / 8)
            for at in range(41, 49)), policy="hash", ttl=300)})
    view["changes"].insert(0, {
        "at": NOW - 20, "pool": "db.example.com", "address": "192.0.2.31", "old": "down",
        "new": "up", "why": "check tcp://192.0.2.31:443: good"})
    return view


def main():
    """Measure, print; draw the picture if that is wanted."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--rounds", type=int, default=9, help="how often each is measured")
    words.add_argument("--picture", type=pathlib.Path, help="PNG to write")
    options = words.parse_args()
    with Browser() as browser, PageServer(large_view()) as pages:
        rounds = [measure(browser, pages) for _ in range(options.rounds)]
        octets = len(lbdns.show_status_page(pages.view).encode())
        for name, values in zip(("render, ms", "load, ms", "update, ms", "layout shift"),
                                zip(*rounds, strict=True), strict=True):
            print(f"{name:14}{statistics.median(values):9.3g}", flush=True)
        print(f"{'octets':14}{octets:9,}")
        if options.picture:
            pages.view = picture_view()
            browser.open(pages.url)
            png = browser.picture(HEIGHT)
            if len(png) > PICTURE_MAX:
                sys.exit(f"the picture has {len(png):,} octets, over {PICTURE_MAX:,}")
            options.picture.write_bytes(png)
            print(f"{'picture':14}{len(png):9,}")


if __name__ == "__main__":
    main()
