"""The studio in headless Chromium: every page at the width of a desktop and of a phone, in light and dark, and what a
person does with mouse and keyboard. Needs the package playwright and a Chromium; the browser downloads nothing."""

import contextlib
import json
import shutil
import threading
import time

import pytest

from filmstrip.data.edited_films import EditedFilm, add_edited
from filmstrip.data.votes import read_votes
from filmstrip.studio.app import application, rate_application
from filmstrip.studio.context import Context
from filmstrip.studio.places import Places
from filmstrip.studio.rating import Rating
from filmstrip.studio.segments import Segments
from filmstrip.video import write_video
from run_folders import save_run
from studio_films import colours, write_avi

pytest.importorskip("uvicorn")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")

PATIENCE = 240_000
"""Time that a page may take, in milliseconds: the first ones import what evaluates, on a core that others share."""
RATIO = 4.5
"""Minimum contrast of text and background (WCAG AA)."""
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility() || node.closest("svg, .skip, .unseen, option, .screen")) continue;
    let behind = node, back = [0, 0, 0, 0];
    while (behind && back[3] < 255) {
      back = rgba(getComputedStyle(behind).backgroundColor);
      behind = behind.parentElement;
    }
    if (back[3] < 255) back = rgba(getComputedStyle(document.body).backgroundColor);
    const [a, b] = [light(rgba(getComputedStyle(node).color)), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < %s) found.push(`${node.tagName}.${node.className} ${node.textContent.slice(0, 30)}: ${ratio}`);
  }
  return found;
}"""
UNNAMED = """() => [...document.querySelectorAll("button, a, input, select, textarea, video, img")].filter((node) =>
  !(node.getAttribute("aria-label") || node.textContent.trim() || node.closest("label")?.textContent.trim()
    || node.type === "hidden" || node.hasAttribute("alt"))).map((node) => node.outerHTML)"""


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Two classifiers with random weights and made-up predictions, and a folder of films to label."""
    root = tmp_path_factory.mktemp("studio")
    videos = root / "videos"
    for label in ("left", "right", "über"):
        for split in ("train", "test"):
            (videos / split / label).mkdir(parents=True)
            write_video(videos / split / label / "a.mp4", colours(32, 64, 96), 16)
    write_avi(videos / "test" / "left" / "old film.avi", colours(16, 48, 64))
    runs = root / "runs"
    runs.mkdir()
    for name, guess in (("first", "left"), ("second", "right")):
        save_run(runs / name, "recognition.vit:tiny")
        config = json.loads((runs / name / "config.json").read_text())
        config["data"]["path"], config["data"]["synthetic"] = str(videos), None
        (runs / name / "config.json").write_text(json.dumps(config))
        lines = [{"step": s, "seconds": s / 10, "loss": 2 - s / 100, "lr": 1e-3} for s in range(10, 101, 10)]
        (runs / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        rows = [f"test/{label}/a.mp4,{label},{guess},0.8" for label in ("left", "right", "über")]
        (runs / name / "predictions.csv").write_text("file,label,class_1,score_1\n" + "\n".join(rows) + "\n")
    return Places(runs, videos)


@contextlib.contextmanager
def served(app):
    """The address at which an application is served."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def address(places):
    """A studio that serves these."""
    with served(application(Context(places))) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as tool:
        found = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def new_page(browser, **options):
    page = browser.new_page(**options)
    page.set_default_timeout(PATIENCE)
    return page


@contextlib.contextmanager
def opened(browser, address, path, width=1200, scheme="light"):
    """A page without errors of scripts."""
    problems = []
    page = new_page(browser, viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.goto(address + path)
    yield page
    page.close()
    assert problems == []


def until(page, condition, seconds=PATIENCE / 1000):
    """Wait for a condition; the policy of the pages forbids playwright's own way, which evaluates text."""

    def holds():
        try:
            return page.evaluate(condition)
        except playwright.Error as error:
            if "navigation" in str(error):  # the next page is about to come
                return False
            raise

    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"never: {condition}; the page says: {page.inner_text('body')[:2000]}"
        page.wait_for_timeout(50)


PAGES = {
    "/": "document.querySelectorAll('.runs li').length >= 2",
    "/run?name=first": "document.body.textContent.includes('All options of the run')",
    "/films?run=first": "document.querySelectorAll('.films li').length === 3",
    "/film?run=first&sample=test/left/a.mp4&with=second": "document.querySelectorAll('.answer .top').length === 2",
    "/compare?a=first&b=second": "document.querySelectorAll('.films li').length === 3",
    "/label": "document.querySelectorAll('.films li').length === 7",
    "/label?video=test/left/a.mp4": "document.querySelector('video').readyState >= 1",
    "/upload": "document.querySelector('#film') !== null",
    "/nothing": "document.body.textContent.includes('Not found')",
}


@pytest.mark.parametrize("path", PAGES)
def test_every_page_fits_and_is_legible_and_named(browser, address, path):
    for width in (1200, 400):
        for scheme in ("light", "dark"):
            if path == "/nothing":  # its status is an error in the console, as it should be
                page = new_page(browser, viewport={"width": width, "height": 900}, color_scheme=scheme)
                page.goto(address + path)
                context = contextlib.closing(page)
            else:
                context = opened(browser, address, path, width, scheme)
            with context as page:
                until(page, PAGES[path])
                over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert over <= 0, f"{path} is {over} pixels too wide at {width}"
                assert page.evaluate(CONTRAST % RATIO) == [], (width, scheme)
                assert page.evaluate(UNNAMED) == []
                assert page.evaluate("document.querySelectorAll('h1').length") == 1


def test_a_click_on_the_timeline_goes_there(browser, address):
    with opened(browser, address, "/film?run=first&sample=test/left/a.mp4") as page:
        until(page, "document.querySelectorAll('.track .span').length > 8")  # label, whole, eight clips
        until(page, "document.querySelector('video').readyState >= 1")
        span = page.locator(".row", has_text="clips").locator(".span").nth(5)
        span.click()
        start = float(span.get_attribute("data-start"))
        until(page, f"Math.abs(document.querySelector('video').currentTime - {start}) < 0.01 && {start} > 0.5")
        page.locator(".scale .track").click(position={"x": 5, "y": 5})
        until(page, "document.querySelector('video').currentTime < 0.1")
        page.keyboard.press("Shift+ArrowRight")
        until(page, "Math.abs(document.querySelector('video').currentTime - 1) < 0.15")


def test_films_are_filtered(browser, address):
    with opened(browser, address, "/compare?a=first&b=second") as page:
        page.select_option("[name=shown]", "a")
        page.click("form.filter button")
        until(page, "location.search.includes('shown=a') && document.querySelectorAll('.films li').length === 1")
        assert "✓ left" in page.inner_text(".films") and "✗ right" in page.inner_text(".films")


def test_curves_change_while_a_run_trains(browser, address, places):
    with opened(browser, address, "/run?name=second") as page:
        until(page, "document.querySelectorAll('svg').length >= 2")
        with (places.runs / "second" / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": 777, "seconds": 20.0, "loss": 0.5, "lr": 1e-3}) + "\n")
        until(page, "document.body.textContent.includes('777')")


def test_segments_are_labelled_by_keyboard_and_saved_at_once(browser, address, places):
    with opened(browser, address, "/label?video=test/left/old film.avi") as page:
        until(page, "document.querySelector('video').readyState >= 2")  # converted
        page.fill("#label", "bright")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("i")
        page.evaluate("document.querySelector('video').pause(); document.querySelector('video').currentTime = 1")
        until(page, "!document.querySelector('video').seeking")
        page.keyboard.press("o")
        until(page, "document.querySelector('.saved').textContent.startsWith('Saved: 1')")
        (row,) = Segments(places.videos).of("test/left/old film.avi")
        assert (
            row["label"] == "bright" and float(row["start"]) < 0.3 and float(row["end"]) == pytest.approx(1, abs=0.1)
        )
        page.keyboard.press("Delete")
        until(page, "document.querySelector('.saved').textContent.startsWith('Saved: 0')")
        page.keyboard.press("z")
        until(page, "document.querySelector('.saved').textContent.startsWith('Saved: 1')")
        page.fill("[aria-label='end of segment 1']", "0.9")
        page.keyboard.press("Tab")
        until(page, "document.querySelector('.saved').textContent.startsWith('Saved: 1')")
        deadline = time.monotonic() + 20
        while Segments(places.videos).of("test/left/old film.avi")[0]["end"] != "0.900":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        page.reload()
        until(page, "document.querySelectorAll('.segments tbody tr').length === 1")


def test_what_could_not_be_saved_is_kept_by_the_browser(browser, address, places):
    """The studio does not answer for a while; the page is left and opened again."""
    page = new_page(browser)
    page.goto(address + "/label?video=test/right/a.mp4")
    until(page, "document.querySelector('video').readyState >= 1")
    page.route("**/label/save", lambda route: route.abort())
    page.fill("#label", "kept")
    page.click("[data-do=start]")
    page.wait_for_timeout(300)
    page.click("[data-do=end]")
    until(page, "document.querySelector('.saved').textContent.startsWith('Not saved')")
    assert Segments(places.videos).of("test/right/a.mp4") == []
    page.unroute("**/label/save")
    page.goto(address + "/label?video=test/right/a.mp4")
    until(page, "document.querySelector('.saved').textContent.startsWith('Saved: 1')")
    assert [row["label"] for row in Segments(places.videos).of("test/right/a.mp4")] == ["kept"]
    page.close()


def test_an_uploaded_film_is_played_and_classified(browser, address, tmp_path):
    write_avi(tmp_path / "mine.avi", colours(16, 48, 64))
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    with opened(browser, address, "/upload") as page:
        page.set_input_files("#film", tmp_path / "mine.avi")
        until(page, "document.querySelector('h1').textContent === 'mine.avi'")
        until(page, "document.querySelector('video') && document.querySelector('video').readyState >= 1")
        page.select_option("#ask-run", "first")
        until(page, "document.querySelector('form[data-what=classify]') !== null")
        page.click("form[data-what=classify] button")
        until(page, "document.querySelectorAll('.answer .top li').length === 3")
        assert "filmstrip predict" in page.text_content(".answer pre")
    page = new_page(browser)
    page.goto(address + "/upload")
    page.set_input_files("#film", tmp_path / "broken.mp4")
    until(page, "document.querySelector('#message').textContent.includes('cannot be read')")
    page.close()


def test_pairs_of_edited_films_are_judged(browser, tmp_path):
    for name in ("source", "ours", "theirs"):
        write_video(tmp_path / f"{name}.mp4", colours(8, 32, 32), 8)
    films = [
        EditedFilm(
            number=number,
            method=method,
            film=tmp_path / f"{method}.mp4",
            source=tmp_path / "source.mp4",
            source_prompt="a dog",
            edit_prompt="a cat",
            type="object",
        )
        for number in range(2)
        for method in ("ours", "theirs")
    ]
    add_edited(tmp_path, films)
    app = rate_application(Context(Places(tmp_path), rating=Rating(tmp_path)))
    with served(app) as address:
        for width, scheme in ((1200, "light"), (400, "dark")):
            with opened(browser, address, "/pair?judge=Ann", width, scheme) as page:
                until(page, "[...document.querySelectorAll('.pair video')].every((film) => film.readyState >= 2)")
                over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert over <= 0
                assert page.evaluate(CONTRAST % RATIO) == [] and page.evaluate(UNNAMED) == []
                page.click("text=Play again")
                until(page, "[...document.querySelectorAll('.pair video')].every((film) => film.currentTime > 0)")
                page.click("#vote button")
                assert read_votes(tmp_path) == [] if width == 1200 else len(read_votes(tmp_path)) == 1
                for name, answer in (("better", "left"), ("text", "same"), ("source", "right")):
                    page.check(f"input[name={name}][value={answer}]")
                before = page.url
                page.click("#vote button")
                until(page, f"location.href !== {before!r} && document.readyState === 'complete'")
        with opened(browser, address, "/pair?judge=Ann") as page:
            assert "judged all 2 pairs" in page.inner_text("main")
    assert [vote.better == vote.left and vote.source == vote.right for vote in read_votes(tmp_path)] == [True, True]
