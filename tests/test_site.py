"""The built documentation, as a reader's browser sees it: `make docs`, then `make test PYTEST_ARGS='-m docs'`."""

import json
import os
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import numpy as np
import pytest
from matplotlib.image import imread

SITE = Path(os.environ.get("SCGAP_SITE", Path(__file__).parents[1] / "docs" / "_build" / "html"))
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
DARK = "--blink-settings=preferredColorScheme=0"

WATCH = """
const complaints = [], root = document.documentElement;
const note = (...words) => { complaints.push(words.join(" ")); root.dataset.complaints = JSON.stringify(complaints); };
root.dataset.complaints = "[]";
console.error = note;
addEventListener("error", (event) => note(event.message || "cannot load " + event.target.outerHTML), true);
addEventListener("unhandledrejection", (event) => note(event.reason));
"""

pytestmark = [
    pytest.mark.docs,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium"),
]
built = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="needs a built site: make docs")


class Page(HTMLParser):
    """What a page points to, and the places in it that can be pointed to."""

    def __init__(self, text):
        super().__init__()
        self.links, self.places, self.complaints = [], set(), None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "html" and "data-complaints" in found:
            self.complaints = json.loads(found["data-complaints"])
        self.places |= {found["id"]} if found.get("id") else set()
        self.links += [found[name] for name in ("href", "src") if found.get(name) and tag != "base"]


class Watched(SimpleHTTPRequestHandler):
    """Serves a folder; pages write into themselves what goes wrong in them, so that it is in what the browser dumps.

    The log of a browser tells errors from the theme's chatter by nothing.
    """

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if path.suffix != ".html" or not path.exists():
            super().do_GET()
            return
        text = path.read_text().replace("<head>", f"<head><script>{WATCH}</script>", 1).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


@pytest.fixture
def served():
    """Serve a folder; gives its address."""
    servers = []

    def serve(folder):
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), partial(Watched, directory=folder)))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def pages_of(site):
    """All pages, without the theme's templates."""
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


def dead_links(site):
    """Page -> its links within the site that lead nowhere."""
    pages = {path: Page(path.read_text()) for path in pages_of(site)}
    dead = {}
    for path, page in pages.items():
        for link in page.links:
            # urljoin against a made-up host: what stays on it is internal.
            address = urljoin(f"http://site/{path.relative_to(site).as_posix()}", link)
            if not address.startswith("http://site/"):
                continue
            file, place = urldefrag(address.removeprefix("http://site/"))
            target = site / unquote(file.split("?")[0] or "index.html")
            places = pages[target].places if target in pages else set()
            if not target.exists() or (place not in ("", "top") and target in pages and unquote(place) not in places):
                dead.setdefault(path.relative_to(site).as_posix(), []).append(link)
    return dead


def complaints(address):
    """The errors of the console and files not found when a browser opens a page."""
    command = [BROWSER, *OPTIONS, "--virtual-time-budget=3000", "--dump-dom", address]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = Page(page)
    assert found.complaints is not None, f"{address} was not watched"
    return found.complaints


def picture(address, file, *options):
    command = [BROWSER, *OPTIONS, *options, "--window-size=1100,1600", f"--screenshot={file}", address]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    return imread(file)[..., :3]


@built
def test_no_internal_link_is_dead():
    assert len(pages_of(SITE)) > 30
    assert dead_links(SITE) == {}


@built
def test_no_page_complains_to_the_console(served):
    address = served(SITE)
    pages = [path.relative_to(SITE).as_posix() for path in pages_of(SITE)]
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(pages, pool.map(complaints, (address + page for page in pages)), strict=True))
    assert {page: words for page, words in found.items() if words} == {}


@built
@pytest.mark.parametrize("page", ["index", "gallery", "guide/method", "generated/scgap.pl.transport"])
def test_pages_are_drawn_in_light_and_dark(served, page, tmp_path):
    folder = Path(os.environ.get("SCGAP_SHOTS", tmp_path))  # where one can look at them
    name, address = page.replace("/", "_"), served(SITE) + page + ".html"
    light = picture(address, folder / f"{name}_light.png")
    dark = picture(address, folder / f"{name}_dark.png", DARK)
    for shown in (light, dark):
        assert shown.std() > 0.05  # something is on it
    assert np.median(light) > 0.9
    assert np.median(dark) < 0.2


def test_dead_links_and_complaints_are_found(served, tmp_path):
    (tmp_path / "index.html").write_text(
        '<html><head></head><body><a href="other.html#here"></a><a href="other.html#there"></a><a href="gone.html"></a>'
        '<a href="https://example.org/gone"></a></body></html>'
    )
    (tmp_path / "other.html").write_text(
        '<html><head></head><body id="here"><script>console.error("one"); throw new Error("two")</script>'
        '<img src="gone.png"></body></html>'
    )
    assert dead_links(tmp_path) == {
        "index.html": ["other.html#there", "gone.html"],
        "other.html": ["gone.png"],
    }
    address = served(tmp_path)
    assert complaints(address + "index.html") == []
    said = complaints(address + "other.html")
    assert said[0] == "one"
    assert any("two" in words for words in said)
    assert any("gone.png" in words for words in said)
