"""Prolific's API, as far as its messages need it: a workspace's secret, and a subscription that is confirmed.

The order is theirs (docs.prolific.com, Webhooks, Subscribing): make the secret; subscribe the address, which is answered
with the header `X-Hook-Secret`; send that back to confirm. A workspace has one secret, and making another voids the one
before: a secret that a study of the same workspace has here already is used again.
"""

from __future__ import annotations

from typing import Any

import httpx

from server.errors import BadInput, Unavailable
from server.services.panels.panel_webhooks import STATUS_CHANGE

API = "https://api.prolific.com"
HOOK_SECRET = "x-hook-secret"
TIMEOUT_SECONDS = 20


class Prolific:
    """A workspace, by a researcher's token, which is used and kept nowhere."""

    def __init__(self, token: str, workspace: str, api: str = API) -> None:
        self.workspace = workspace
        self.client = httpx.Client(
            base_url=f"{api}/api/v1/hooks/", headers={"Authorization": f"Token {token}"}, timeout=TIMEOUT_SECONDS
        )

    def new_secret(self) -> str:
        """Make the secret that signs this workspace's messages; one that was there before is void."""
        return str(_field(self._ask("POST", "secrets/", {"workspace_id": self.workspace}), "value"))

    def subscribe(self, address: str) -> str:
        """Let each change of a submission be told to `address`, and confirm it; the subscription's number."""
        found = self._ask("GET", f"subscriptions/?workspace_id={self.workspace}").json().get("results", [])
        for each in found:
            if each.get("target_url") == address and each.get("event_type") == STATUS_CHANGE and each.get("is_enabled"):
                return str(each["id"])
        wanted = {"workspace_id": self.workspace, "event_type": STATUS_CHANGE, "target_url": address}
        made = self._ask("POST", "subscriptions/", wanted)
        number, confirm = str(_field(made, "id")), made.headers.get(HOOK_SECRET)
        if not confirm:
            raise Unavailable("Prolific made the subscription without the header X-Hook-Secret to confirm it with.")
        self._ask("POST", f"subscriptions/{number}/", {"secret": confirm})
        return number

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            answer = self.client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise Unavailable(f"Prolific's API did not answer ({error}); try again.") from error
        if answer.status_code in (401, 403):
            raise BadInput("Prolific does not take this token for this workspace; make one under Settings, API tokens.")
        if answer.is_error:
            raise Unavailable(f"Prolific answered {answer.status_code}: {answer.text[:300]}")
        return answer


def _field(answer: httpx.Response, name: str) -> object:
    """A field of the answer; what is made may also stand as the only one of a list."""
    told = answer.json()
    if name not in told and len(told.get("results", ())) == 1:
        told = told["results"][0]
    if name not in told:
        raise Unavailable(f"Prolific's answer has no field {name!r}: {answer.text[:300]}")
    return told[name]
