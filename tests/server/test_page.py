"""The page in a real browser: `cof serve` with nano, and headless Chromium."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from cof_agent.agent import Agent
from cof_agent.cli import main
from cof_agent.data.samples import read_samples
from cof_agent.geometry import Size
from cof_agent.trajectory import Sample, Trajectory, from_json, to_json
from tests.image.test_pages import TEXT, write
from tests.scenes.shared import Scenes
from tests.viewer.drawn import NASTY

pytest.importorskip("playwright", reason="the page is tried in a browser only with playwright: pip install playwright")
pytest.importorskip("nicegui", reason="the page needs the extra serve")

from playwright.sync_api import Browser, BrowserContext, Dialog, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,  # the file takes half a minute
    pytest.mark.skipif(CHROMIUM is None, reason="the page is tried in a browser only where there is chromium"),
]

SAFE = NASTY.replace("\ud800", "?")
LONGEST = 60_000  # milliseconds for what takes less than one second on an idle machine
TILES = "[...document.querySelectorAll('img.leaflet-tile')].filter(tile => tile.naturalWidth === 256).length"
expect.set_options(timeout=LONGEST)


@pytest.fixture(scope="module")
def folder(drawn: Scenes) -> Path:
    """Three 4K scenes, a PDF file, and a run over the scenes. The last trajectory has text that tries to be markup."""
    made = drawn(3, seed=1, size=Size(3840, 2160))
    played = Agent("nano").ask_many(read_samples(made), progress=False)
    evil = replace(played[2].turns[0], text=f"<think>{NASTY}</think>")
    played[0] = replace(played[2], turns=(evil, *played[2].turns[1:]), answer=NASTY)
    write(made / "book.pdf", TEXT, TEXT)
    (made / "trajectories.jsonl").write_text("".join(to_json(one) + "\n" for one in played), "utf-8")
    return made


@pytest.fixture(scope="module")
def scene(folder: Path) -> Sample:
    return read_samples(folder)[2]


@contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """The address of `cof serve`."""
    command = [sys.executable, "-m", "cof_agent.cli", "serve", "--port", "0", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout and server.stderr
        line = server.stdout.readline()
        assert line.startswith("http"), server.stderr.read()
        try:
            yield line.split()[0]
        finally:
            server.terminate()
            _, said = server.communicate(timeout=60)
        assert "Traceback" not in said, said


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serving("--allow-images-from", str(folder)) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@contextmanager
def opened(browser: Browser, address: str, **how: Any) -> Iterator[Page]:
    """The page. At the end: nothing was said on the console, nothing popped up, and nobody else was asked for anything."""
    faults: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    context: BrowserContext = browser.new_context(**{"viewport": {"width": 1300, "height": 820}, **how})
    context.set_default_timeout(LONGEST)
    context.on("console", lambda message: faults.append(f"console: {message.text}"))
    context.on("weberror", lambda error: faults.append(f"error: {error.error}"))
    context.on("dialog", dismiss)
    context.on("request", lambda request: None if own(request.url, address) else faults.append(f"asked: {request.url}"))
    page = context.new_page()
    page.goto(address)
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()
    yield page
    context.close()
    assert faults == []


def own(url: str, address: str) -> bool:
    return url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))


def choose(page: Page, label: str, option: str | re.Pattern[str]) -> None:
    page.get_by_label(label).click()
    page.get_by_role("option", name=option).first.click()


def ask(page: Page, scene: Sample) -> None:
    choose(page, "or one of the server's", Path(scene.image).name)  # two clicks
    page.wait_for_function("document.querySelectorAll('img.leaflet-tile-loaded').length > 0")
    page.get_by_label("Question").fill(scene.question)
    page.get_by_role("button", name="Ask", exact=True).click()  # the third


def test_three_clicks_bring_the_answer_the_boxes_and_the_crops(browser: Browser, address: str, scene: Sample) -> None:
    alone = Agent("nano").ask(scene.image, scene.question)
    with opened(browser, address) as page:
        ask(page, scene)
        expect(page.get_by_test_id("answer")).to_have_text(alone.answer or "")
        expect(page.get_by_test_id("crop")).to_have_count(alone.zooms)
        expect(page.locator(".cof-tag")).to_have_text([str(number + 1) for number in range(alone.zooms)])
        expect(page.locator("path.leaflet-interactive, .leaflet-overlay-pane path")).to_have_count(2 * alone.zooms)
        first = alone.crops[0].region.pixels()
        expect(page.get_by_test_id("crop").first).to_contain_text(f"at ({first[0]}, {first[1]})")
        assert page.evaluate("[...document.querySelectorAll('.cof-crop')].every(i => i.naturalWidth > 0)")

        page.get_by_test_id("crop").first.get_by_role(
            "button"
        ).click()  # the viewer moves to it, and loads what is there
        page.wait_for_function(f"{TILES} > 3")

        with page.expect_download() as download:
            page.get_by_role("button", name="Download the trajectory").click()
        saved = from_json(Path(download.value.path()).read_bytes(), Trajectory)
        assert (saved.answer, saved.sample.image) == (alone.answer, Path(scene.image).name)

        page.get_by_role("tab", name="History").click()
        page.get_by_role("button", name=re.compile(re.escape(scene.question))).click()
        expect(page.get_by_test_id("answer")).to_have_text(alone.answer or "")


def test_clients_that_vanish_leave_no_fault(address: str) -> None:
    """`serving` reads at its end what the server said."""
    server = urlsplit(address)
    paths = ("/_nicegui_ws/socket.io/?EIO=4&transport=polling", "/v1/chat/completions")
    for path, wait in itertools.product(paths, (0, 0.2)):
        with socket.create_connection((server.hostname, server.port)) as client:
            head = f"POST {path} HTTP/1.1\r\nhost: {server.netloc}\r\ncontent-type: application/json\r\n"
            client.sendall(f"{head}content-length: 100\r\n\r\n".encode())
            time.sleep(wait)


def test_a_sent_picture_a_drawn_box_and_the_keyboard(browser: Browser, address: str, scene: Sample) -> None:
    with opened(browser, address) as page:
        page.locator("input[type=file]").set_input_files(scene.image)
        page.wait_for_function("document.querySelectorAll('img.leaflet-tile-loaded').length > 0")
        page.locator(".leaflet-draw-draw-rectangle").click()
        frame = page.locator(".cof-map").bounding_box()
        assert frame is not None
        middle = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
        page.mouse.move(*middle)
        page.mouse.down()
        page.mouse.move(middle[0] + 60, middle[1] + 40, steps=4)
        page.mouse.up()
        question = page.get_by_label("Question")
        expect(question).to_have_value("<region1>")
        expect(page.locator(".cof-tag")).to_have_text(["region 1"])
        page.get_by_text("Settings").click()
        written = page.get_by_label("Boxes X0,Y0,X1,Y1").input_value()
        x0, y0, x1, y1 = map(float, written.split(","))
        assert abs(x0 - 1920) < 20 and abs(y0 - 1080) < 20  # the middle of the image
        assert abs((x1 - x0) / (y1 - y0) - 60 / 40) < 0.1
        page.locator(".cof-map").focus()
        zoomed = "document.querySelector('.leaflet-tile-container.leaflet-zoom-animated').style.transform"
        before = page.evaluate(zoomed)
        page.keyboard.press("+")
        page.wait_for_function(f"{zoomed} !== {json.dumps(before)}")
        question.fill("What is in <region1>?")
        question.press("Enter")
        expect(page.get_by_test_id("answer")).to_be_visible()
        question.fill("What is in <region2>?")
        question.press("Enter")
        expect(page.get_by_text("names <region2>, but only 1 region is given")).to_be_visible()


def loaded(page: Page) -> None:
    page.wait_for_function("document.querySelectorAll('img.leaflet-tile-loaded').length > 0")


def test_several_images_and_the_history_after_a_reload(
    browser: Browser, address: str, folder: Path, scene: Sample
) -> None:
    first, second = (one.image for one in read_samples(folder)[:2])
    with opened(browser, address) as page:
        page.locator("input[type=file]").set_input_files([first, second])
        strip = page.get_by_role("group", name="Images")
        expect(strip.get_by_role("button", name=re.compile(r"^\d: "))).to_have_text(
            [f"0: {Path(first).name}", f"1: {Path(second).name}"]
        )
        choose(page, "or one of the server's", Path(scene.image).name)  # joins them
        expect(strip.get_by_role("button", name=re.compile("^2: "))).to_have_attribute("aria-pressed", "true")
        strip.get_by_role("button", name="Take away image 0").click()
        names = [f"0: {Path(second).name}", f"1: {Path(scene.image).name}"]
        expect(strip.get_by_role("button", name=re.compile(r"^\d: "))).to_have_text(names)
        loaded(page)
        page.get_by_label("Question").fill("Which is it?")
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(page.get_by_test_id("answer")).to_be_visible()
        answer = page.get_by_test_id("answer").inner_text()
        with page.expect_download() as download:
            page.get_by_role("button", name="Download the trajectory").click()
        saved = from_json(Path(download.value.path()).read_bytes(), Trajectory)
        assert len(saved.overviews) == 2
        assert saved.sample.id == saved.sample.image == Path(second).name  # not what it is called on the server
        page.get_by_text("Settings").click()
        page.get_by_label("Possible answers, one per line").fill("red\nblue")

        page.reload()
        page.get_by_role("tab", name="History").click()
        page.get_by_role("button", name="Which is it?").click()
        expect(page.get_by_test_id("answer")).to_have_text(answer)
        page.get_by_role("tab", name="Ask").click()
        page.get_by_text("Settings").click()
        expect(page.get_by_label("Possible answers, one per line")).to_have_value("")
        expect(strip.get_by_role("button", name=re.compile(r"^\d: "))).to_have_text(names)
        loaded(page)
    with opened(browser, address) as page:  # another tab
        page.get_by_role("tab", name="History").click()
        expect(page.get_by_role("tab", name="History")).to_have_attribute("aria-selected", "true")
        expect(page.get_by_role("button", name="Which is it?")).to_have_count(0)


def test_pages_of_a_pdf_file(browser: Browser, address: str, tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2")
    write(tmp_path / "report.pdf", TEXT, TEXT, TEXT)
    with opened(browser, address) as page:
        page.locator("input[type=file]").set_input_files(tmp_path / "report.pdf")
        pages = page.get_by_label("Pages, such as 1 or 2,5-7")
        expect(page.get_by_text("report.pdf has 3 pages.")).to_be_visible()
        pages.fill("4")
        page.get_by_role("button", name="Open", exact=True).click()
        expect(page.get_by_text("there is no page 4: the file has pages 1 to 3.")).to_be_visible()
        page.locator("input[type=file]").set_input_files(tmp_path / "report.pdf")
        pages.fill("3,1")
        pages.press("Enter")
        strip = page.get_by_role("group", name="Images")
        expect(strip.get_by_role("button", name=re.compile(r"^\d: "))).to_have_text(
            ["0: report.pdf, page 3", "1: report.pdf, page 1"]
        )
        loaded(page)
        page.get_by_label("Question").fill("What is written?")
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(page.get_by_test_id("answer")).to_be_visible()
        choose(page, "or one of the server's", re.compile(r"book\.pdf"))
        expect(page.get_by_text("book.pdf has 2 pages.")).to_be_visible()
        pages.press("Enter")
        expect(strip.get_by_role("button", name=re.compile("^2: "))).to_have_text("2: book.pdf, page 1")


def test_a_run_of_the_servers_folders_shows_its_text_as_text(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        page.get_by_role("tab", name="Runs").click()
        choose(page, "File of trajectories", re.compile(r"trajectories\.jsonl"))
        expect(page.get_by_label("Trajectory", exact=True)).to_be_visible()
        choose(page, "Trajectory", re.compile("purple square"))
        expect(page.get_by_test_id("answer")).to_have_text(SAFE, use_inner_text=False)
        expect(page.locator(".cof-tag")).to_have_text(["1", "2"])
        assert (
            page.evaluate("document.querySelectorAll('.cof-panel script, .cof-panel img:not(.cof-crop)').length") == 0
        )


def test_a_link_of_a_page_of_cof_view_opens_the_trajectory(
    browser: Browser, address: str, folder: Path, tmp_path: Path
) -> None:
    assert main(["view", str(folder), "--server", f"{address}/", "-o", str(tmp_path / "page.html")]) == 0
    context = browser.new_context()
    written = context.new_page()
    written.goto((tmp_path / "page.html").as_uri())
    for number, answer in ((0, SAFE), (2, None)):
        written.locator(".card").nth(number).scroll_into_view_if_needed()
        link = written.locator(".card").nth(number).get_by_role("link", name="Full resolution")
        with context.expect_page() as opened_page:
            link.click()
        page = opened_page.value
        expect(page.get_by_test_id("answer")).to_be_visible()
        page.wait_for_function("document.querySelectorAll('img.leaflet-tile-loaded').length > 0")
        if answer:
            expect(page.get_by_test_id("answer")).to_have_text(answer, use_inner_text=False)
        expect(page.locator(".cof-tag")).to_have_text(["1", "2"])
        page.close()
    context.close()


def test_a_link_that_leads_nowhere_says_why(browser: Browser, address: str, folder: Path, scene: Sample) -> None:
    file = str(folder / "trajectories.jsonl")
    changed, outside = "has changed since the page", "there is no file"
    for query, said in (
        ({"run": file, "number": "1", "id": scene.id}, changed),
        ({"run": file, "number": "99999999999999999999", "id": scene.id}, changed),
        ({"run": "/etc/passwd", "number": "0", "id": "x"}, outside),
    ):
        page = browser.new_page()
        page.goto(f"{address}/?{urlencode(query)}")
        expect(page.get_by_text(said)).to_be_visible()
        page.close()


def test_it_fits_a_phone_and_the_dark(browser: Browser, address: str, scene: Sample) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "color_scheme": "dark"}
    with opened(browser, address, **phone) as page:
        ask(page, scene)
        expect(page.get_by_test_id("answer")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.evaluate("document.body.classList.contains('body--dark')")


def test_a_key_opens_the_page(browser: Browser, folder: Path) -> None:
    with serving("--api-key", "a-key-of-the-tests") as address:
        page = browser.new_page()
        page.goto(f"{address}/?number=3")
        page.get_by_label("Key of this server").fill("a-key-of-the-tests")
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()
        assert page.url == f"{address}/?number=3", "where the link was to lead"
        page.get_by_label("Question").fill("What?")
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(page.get_by_text("First drop a picture")).to_be_visible()
        assert json.loads(page.request.get(f"{address}/v1/models").text())["data"][0]["id"] == "nano"
        page.close()
