"""The report in a real browser: sort a table, switch a curve, open a sequence."""

import shutil

import pytest

from eval.report.page import write_report
from tests.eval.test_report import SYNTHETIC, hostile, outcomes
from tests.eval.test_slots import SEQUENCES

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: chromium)")
def test_report_in_chromium(tmp_path):
    from playwright.sync_api import sync_playwright

    path = write_report(tmp_path / "report.html", outcomes(), SYNTHETIC, SEQUENCES)
    with sync_playwright() as play:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page()
        errors: list[str] = []
        requests: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        assert all(url.startswith(("file:", "data:")) for url in requests)

        for falling in (True, False):
            page.locator("#sequences th").nth(1).click()
            values = page.locator("#sequences tbody tr td:nth-child(2)").all_inner_texts()
            assert values == sorted(values, reverse=falling)
            assert len(set(values)) > 1

        success = page.locator("#curves path").first.get_attribute("d")
        page.locator("button[data-curve=precision]").click()
        assert page.locator("#curves path").first.get_attribute("d") != success
        page.locator("#legend input").first.uncheck()
        assert page.locator("#curves path").count() == 1

        page.locator("#sequences tbody tr[data-index='4']").click()
        assert page.locator("#chosen-name").inner_text() == "s4"
        assert page.locator("#strip img").count() >= 2
        assert page.locator("#strip img").first.evaluate("image => image.naturalWidth") > 0
        assert not errors
        browser.close()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: chromium)")
def test_nothing_in_a_name_runs_in_chromium(tmp_path):
    from playwright.sync_api import sync_playwright

    path = hostile(tmp_path)
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        page.goto(path.as_uri())
        for row in page.locator("#sequences tbody tr").all():
            row.click()
            row.hover()
            page.locator("#strip img").first.hover()
        for button in page.locator("#curve-buttons button").all():
            button.click()
        for box in page.locator("#legend input").all():
            box.uncheck()
            box.check()
        for head in page.locator("th").all():
            head.click()
        assert page.evaluate("window.hit") is None
        assert not errors
        assert page.locator("script").count() == 2
        assert page.locator("#strip img").count() >= 2
        browser.close()
