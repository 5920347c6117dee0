"""The beat of the chat page: every half minute while somebody is active at it, and never while it lies there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import update

from server.db import session_factory
from server.models import Campaign, WorkSession
from tests.browser.conftest import Live

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_the_beat_follows_the_person(live: Live, signed_in_page: Callable[..., Page]) -> None:
    sessions = session_factory(str(live.settings.database_url))
    with sessions.begin() as db:
        db.execute(update(Campaign).values(pay_per_hour=Decimal(12)))
    page = signed_in_page()
    page.clock.install()
    beats: list[str] = []
    page.on("request", lambda request: beats.append(request.url) if request.url.endswith("/alive") else None)
    page.goto(f"{live.url}/chat/helpful")
    page.locator("#chat[data-live]").wait_for()
    expect(page.locator("#paid")).to_contain_text("Today: 0 min of paid time, $0.00 at $12.00 an hour.")
    with sessions.begin() as db:  # as if the page had been opened two minutes ago
        db.execute(update(WorkSession).values(seen_at=WorkSession.seen_at - timedelta(minutes=2)))
    page.mouse.move(100, 100)
    page.clock.run_for(31_000)
    expect(page.locator("#paid")).to_contain_text("Today: 2 min of paid time, $0.40 at $12.00 an hour.")
    assert beats == [f"{live.url}/api/campaigns/helpful/alive"]
    page.clock.run_for(60_000)  # the first of the two looks may still be within a minute of the last sign
    so_far = len(beats)
    assert so_far <= 2
    page.clock.run_for(600_000)
    assert len(beats) == so_far
    page.keyboard.press("Shift")
    page.clock.run_for(31_000)
    assert len(beats) == so_far + 1
