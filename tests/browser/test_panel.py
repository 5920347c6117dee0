"""Somebody comes from a panel, does what the study asks for, and goes back with the code, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select

from server.db import session_factory
from server.models import PanelSubmission
from tests.browser import every_page
from tests.browser.conftest import Live
from tests.browser.test_accessibility import violations

pytestmark = pytest.mark.browser
LINK = "/panel/study?PROLIFIC_PID=60aa0a9b8e7d6c5b4a392811&STUDY_ID=st1&SESSION_ID=68b1"


def answer(page: Page, script: bool) -> None:
    page.get_by_label("Why", exact=True).fill("It is shorter.")
    if not script:
        page.locator(".step").nth(6).click()
    else:
        page.locator("h1").click()
        page.keyboard.press("7")
    page.get_by_role("button", name="Send choice").click()


@pytest.mark.parametrize("script", [True, False])
def test_from_the_link_to_the_code(live: Live, chromium: Browser, script: bool) -> None:
    every_page.build(live.settings)
    context = chromium.new_context(java_script_enabled=script)
    page = context.new_page()
    page.goto(live.url + LINK)
    page.wait_for_url(f"{live.url}/chat/pairs")
    found = list(violations(page)) if script else []
    for done in (1, 2):
        expect(page.get_by_text(f"{done - 1} of 2 answers for your study.")).to_be_visible()
        answer(page, script)
    expect(page.get_by_text("2 of 2 answers for your study.")).to_be_visible()
    page.get_by_role("link", name="Finish and go back").click()
    found += violations(page) if script else []
    page.get_by_role("button", name="Finish", exact=True).click()
    back = page.get_by_role("link", name="Go back to Prolific")
    expect(back).to_have_attribute("href", "https://app.prolific.com/submissions/complete?cc=C0DONE")
    found += violations(page) if script else []
    page.goto(live.url + LINK)
    expect(page.get_by_text("C0DONE")).to_be_visible()
    page.goto(live.url + LINK.replace("60aa", "70bb").replace("68b1", "68b2"))  # somebody else's link, the same browser
    expect(page.get_by_role("button", name="Go on as the participant")).to_be_visible()
    found += violations(page) if script else []
    context.close()
    assert not found, "\n".join(found)
    with session_factory(str(live.settings.database_url))() as db:
        mine = db.scalars(select(PanelSubmission).where(PanelSubmission.external_id == "68b1")).one()
        assert (mine.outcome, mine.status) == ("success", "awaiting_review")
