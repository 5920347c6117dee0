"""A comparison on a phone: long replies read in place, the scale within reach, targets for fingers, focus that can be seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from server.models import Comparison
from tests.browser import every_page
from tests.browser.conftest import Live
from tests.browser.test_verdicts import rows

pytestmark = pytest.mark.browser
Open = Callable[..., Page]
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
A, B = ".candidate[data-position='0']", ".candidate[data-position='1']"
expect.set_options(timeout=20_000)
# Links within a sentence or a cell are as high as its line, which WCAG allows.
SMALL = """(least) => [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary")]
  .filter((each) => each.checkVisibility() && !each.closest(".visually-hidden, .skip, .prose, dialog, td, p, li, dd"))
  .map((each) => each.closest("label") ?? each)
  .map((each) => [each.tagName, each.textContent.trim().slice(0, 30), each.getBoundingClientRect()])
  .filter(([, , box]) => box.width < least[0] || box.height < least[1])
  .map(([tag, text, box]) => `${tag} "${text}" ${Math.round(box.width)}x${Math.round(box.height)}`)"""
# What shows that an element has the focus: an outline of its own, or of what stands around it.
UNSEEN = """() => {
  const seen = (each) => { const style = getComputedStyle(each); return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2; };
  const focused = document.activeElement;
  const around = focused.closest(".composer, .step, .shown label");
  const name = `${focused.tagName} ${focused.className} ${focused.name ?? ""} ${focused.textContent.trim().slice(0, 30)}`;
  return seen(focused) || (around && seen(around)) ? null : name;
}"""


def open_pair(live: Live, page: Page, slug: str = "pairs") -> None:
    every_page.build(live.settings)
    page.goto(f"{live.url}/chat/{slug}")
    page.locator(".instructions summary").click()
    page.locator(".choice").evaluate("each => each.scrollIntoView()")


@pytest.mark.parametrize("script", [True, False])
def test_each_long_reply_is_read_in_place(live: Live, signed_in_page: Open, script: bool) -> None:
    page = signed_in_page(java_script_enabled=script, **PHONE)
    open_pair(live, page)
    expect(page.locator(A)).to_be_visible()
    expect(page.locator(B)).to_be_hidden()
    page.get_by_role("radio", name="Reply B", exact=True).check(force=True)
    expect(page.locator(A)).to_be_hidden()
    expect(page.locator(B)).to_be_visible()
    page.get_by_role("radio", name="Both", exact=True).check(force=True)
    expect(page.locator(A)).to_be_visible()
    expect(page.locator(B)).to_be_visible()
    page.get_by_role("radio", name="B is much better").check(force=True)
    page.get_by_label("Why", exact=True).fill("It says how long.")
    page.get_by_role("button", name="Send choice").click()
    page.wait_for_timeout(300)
    assert [row.scale_position for row in rows(live, Comparison) if row.justification] == [8]


def test_wide_pages_show_both_without_a_switch(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    open_pair(live, page)
    expect(page.locator(A)).to_be_visible()
    expect(page.locator(B)).to_be_visible()
    expect(page.locator(".shown")).to_be_hidden()


def test_the_scale_stays_at_the_edge_and_covers_nothing_at_the_end(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page(**PHONE)
    open_pair(live, page)
    page.get_by_role("radio", name="Both", exact=True).check(force=True)
    scale = page.locator(".scale")
    box = scale.bounding_box()
    assert box is not None
    assert round(box["y"] + box["height"]) == 740
    assert box["height"] < 740 * 0.45  # with a reason asked for, whose box is open
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    last, box = page.locator(B).bounding_box(), scale.bounding_box()
    assert last is not None and box is not None
    assert last["y"] + last["height"] <= box["y"]
    page.set_viewport_size({"width": 640, "height": 400})  # a wide page at 200 %: too low for anything that stays
    page.locator(".choice").evaluate("each => each.scrollIntoView()")
    assert scale.evaluate("each => getComputedStyle(each).position") == "static"


def test_code_and_tables_scroll_in_their_own_boxes(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page(**PHONE)
    open_pair(live, page)
    page.get_by_role("radio", name="Both", exact=True).check(force=True)
    for box in ("pre", ".scroll"):
        wide = page.locator(f".candidate {box}").first
        assert wide.evaluate("each => each.scrollWidth > each.clientWidth && each.clientWidth < 360")
        wide.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(300)
        assert wide.evaluate("each => each.scrollLeft") > 0


def test_targets_are_for_fingers(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page(**PHONE)
    open_pair(live, page)
    addresses = ["/chat/pairs", "/chat/long", "/chat/helpful", "/settings", "/", "/me"]
    for address in addresses:
        page.goto(live.url + address)
        assert page.evaluate(SMALL, [24, 24]) == [], address  # WCAG 2.2
    page.goto(f"{live.url}/chat/pairs")
    too_low = page.evaluate(SMALL, [24, 44])
    assert too_low == []


@pytest.mark.parametrize("address", ["/chat/pairs", "/chat/helpful", "/settings", "/"])
def test_the_focus_is_always_seen_and_never_covered(live: Live, signed_in_page: Open, address: str) -> None:
    every_page.build(live.settings)
    page = signed_in_page(viewport={"width": 360, "height": 740})
    page.goto(live.url + address)
    stops, unseen, covered = [], [], []
    for _press in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        stops.append(page.evaluate("document.activeElement.outerHTML.slice(0, 80)"))
        unseen.append(page.evaluate(UNSEEN))
        covered.append(
            page.evaluate("""() => {
              const box = document.activeElement.getBoundingClientRect();
              const scale = document.querySelector(".scale")?.getBoundingClientRect();
              if (!scale || document.activeElement.closest(".scale")) return null;
              return box.top >= scale.top && box.bottom <= scale.bottom ? document.activeElement.outerHTML.slice(0, 80) : null;
            }""")
        )
    assert len(stops) >= 4
    assert [each for each in unseen if each] == []
    assert [each for each in covered if each] == []


def test_colours_of_the_system_keep_the_scale_and_the_choice(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page(forced_colors="active")
    open_pair(live, page)
    colour = "each => getComputedStyle(each).backgroundColor"
    marks = page.locator(".step .mark")
    page.get_by_role("radio", name="A is much better").check(force=True)
    ground = page.locator(".step").last.evaluate(colour)
    others = marks.last.evaluate(colour)
    assert others != ground
    expect(marks.first).not_to_have_css("background-color", others)  # it may take a moment to fade in
    expect(marks.first).not_to_have_css("background-color", ground)


def test_reduced_motion_moves_nothing(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page(reduced_motion="reduce")
    open_pair(live, page)
    moving = """() => [...document.querySelectorAll("*")].filter((each) => {
      const style = getComputedStyle(each);
      return style.animationName !== "none" || parseFloat(style.transitionDuration) > 0;
    }).length"""
    assert page.evaluate(moving) == 0
