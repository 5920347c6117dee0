"""What an admin says about a study: settings that cannot be, a way back that could lead elsewhere, and the pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from server.errors import BadInput
from server.models import Campaign, Panel, Person
from server.services.panels import panel_settings, panels
from tests import factories
from tests.conftest import Cast
from tests.server.test_panels import GENERIC, OTHER_PID, PID, answer, pairs, panel

__all__ = ["pairs", "panel"]  # fixtures
SignIn = Callable[[Person | None], str]


@pytest.mark.parametrize(
    "template",
    [
        "http://panel.example/{code}", "javascript:alert(1)", "//panel.example/{code}", "https://{participant}/x",
        "https://panel.example.{group}/x", "https://user:secret@panel.example/x", "https://panel.example/{unknown}",
        "https://panel.example/{code!r}", "https://panel.example/{code.__class__}", "https://panel.example/{code:>9}",
        "https://panel.example/{", "https://panel.example/{}", "https://panel.example/a b", "https:///x",
        "https://panel.example\\@evil.example/",
    ],
)  # fmt: skip
def test_a_way_back_that_could_lead_elsewhere_is_refused(template: str) -> None:
    with pytest.raises(BadInput) as refused:
        panel_settings.checked_template(template, ["group"])
    assert refused.value.field == "redirect"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"target": "0"}, "target"),
        ({"target": "many"}, "target"),
        ({"code_success": ""}, "code_success"),
        ({"code_success": "a b"}, "code_success"),
        ({"code_no_consent": "C0DONE"}, "codes"),
        ({"participant_parameter": ""}, "participant_parameter"),
        ({"captured": "1x"}, "captured"),
        ({"captured": "x x"}, "captured"),
        ({"redirect": "http://x.example"}, "redirect"),
    ],
)
def test_settings_that_cannot_be_name_their_field(wrong: dict[str, str], field: str) -> None:
    good = {"target": "2", "code_success": "C0DONE", **GENERIC}
    assert panel_settings.checked("generic", good)["captured"] == ["wave", "group"]
    with pytest.raises(BadInput) as refused:
        panel_settings.checked("generic", good | wrong)
    assert refused.value.field == field


def test_an_admin_makes_changes_and_closes_a_study(
    client: TestClient, db: Session, cast: Cast, pairs: Campaign, sign_in: SignIn
) -> None:
    sign_in(cast.ada)
    form: dict[str, Any] = {
        "name": "May",
        "slug": "may",
        "kind": "prolific",
        "campaign": "pairs",
        "target": "9",
        "code_success": "CX",
    }
    refused = client.post("/admin/panels", data=form | {"target": "x"})
    assert refused.status_code == 422 and 'value="May"' in refused.text and "from 1 to 100,000" in refused.text
    assert client.post("/admin/panels", data=form).headers["location"] == "/admin/panels/may?saved=made"
    assert client.post("/admin/panels", data=form).status_code == 409
    page = client.get("/admin/panels/may").text
    assert (
        "/panel/may?PROLIFIC_PID={{%PROLIFIC_PID%}}&amp;STUDY_ID={{%STUDY_ID%}}&amp;SESSION_ID={{%SESSION_ID%}}" in page
    )
    assert client.post("/admin/panels/may", data=form | {"target": "3", "name": "June"}).status_code == 303
    assert client.post("/admin/panels/may/secret", data={"secret": ""}).status_code == 422  # Prolific's own is needed
    assert client.post("/admin/panels/may/secret", data={"secret": "x" * 40}).status_code == 303
    assert "x" * 40 not in client.get("/admin/panels/may").text
    client.post("/admin/panels/may/close")
    db.expire_all()
    panel = panel_settings.find(db, "may")
    assert (panel.name, panel.settings["target"], panel.webhook_secret) == ("June", 3, "x" * 40)
    assert panel.closed_at is not None
    client.post("/admin/panels/may/open")
    db.expire_all()
    assert panel_settings.find(db, "may").closed_at is None


def test_the_page_of_a_study_counts_by_status(
    client: TestClient, db: Session, cast: Cast, panel: Panel, pairs: Campaign, sign_in: SignIn
) -> None:
    person, _one = panels.enter(db, panel, panels.Arrival(PID, "s1", None, {}))
    answer(db, person, pairs)
    other, _two = panels.enter(db, panel, panels.Arrival(OTHER_PID, "s2", None, {}))
    panels.screen_out(db, other, pairs)
    sign_in(cast.ada)
    page = client.get("/admin/panels/first").text
    assert PID in page and OTHER_PID in page
    assert PID not in client.get("/admin/panels/first?status=screened_out").text
    generic = factories.panel(db, pairs, "generic", GENERIC, slug="other")
    db.commit()
    assert "?pid={participant}&amp;visit={submission}&amp;wave={wave}" in client.get("/admin/panels/other").text
    made = client.post("/admin/panels/other/secret", data={})
    db.refresh(generic)
    assert generic.webhook_secret and generic.webhook_secret in made.text
