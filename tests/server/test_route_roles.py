"""Every route, for every role, and without the token of the session: a new route fails here until it is entered.

What belongs to whom (another person's turn, another job's file) is tested beside each subject; this is the gate in front.
"""

from __future__ import annotations

import re

import pytest
from fastapi.routing import APIRoute

from server.edge import SAFE_METHODS
from server.routes import BUSIEST, ROUTERS

EVERYBODY = {"nobody", "crowdworker", "researcher", "admin"}
# The first rule that fits decides.
RULES = (
    (
        r"(GET /|(GET|POST) /sign-in|(GET|POST) /sign-in/.*|(GET|POST) /invitation/.*|POST /api/session|POST /(language|theme))",
        EVERYBODY,
    ),
    (r"GET /(health|ready)", EVERYBODY),
    (r"(GET|POST) /panel/\{slug\}|POST /panel/\{slug\}/webhook", EVERYBODY),
    (r"\w+ /panel/\{slug\}/done", {"crowdworker"}),
    (r"(POST /sign-out|DELETE /api/session|(GET|POST) /settings)", EVERYBODY - {"nobody"}),
    (r"\w+ (/chat|/me|/api/campaigns|/api/turns|/api/drafts)(/.*)?", {"crowdworker"}),
    (r"\w+ (/api)?/(rounds|snapshots|schedule|wins)(/.*)?", {"researcher", "admin"}),
    (r"GET /admin/(data|conversations)(/.*)?", {"researcher", "admin"}),
    (r"\w+ /admin/.*", {"admin"}),
)
ROUTES = [
    (method, route.path)
    for router in (BUSIEST, *ROUTERS)
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in sorted(route.methods)
]


def allowed(method: str, path: str) -> set[str]:
    """The roles that may use a route; KeyError for one that no rule names."""
    for rule, roles in RULES:
        if re.fullmatch(rule, f"{method} {path}"):
            return roles
    raise KeyError(f"{method} {path}: say in RULES who may use it")


def address(path: str) -> str:
    """The path with numbers and names of what does not exist."""
    return re.sub(r"\{(slug|place|token|name)\}", "none", re.sub(r"\{\w+_id(:row)?\}", "999999999", path))


def test_there_are_routes() -> None:
    assert len(ROUTES) > 60


def test_only_the_roles_that_may(client, cast, sign_in) -> None:
    people = {"nobody": None, "crowdworker": cast.alice, "researcher": cast.rosa, "admin": cast.ada}
    wrong = []
    for role, person in people.items():  # one application for all: making it is what takes time
        sign_in(person)
        for method, path in ROUTES:
            if role in allowed(method, path):
                continue
            status = client.request(method, address(path)).status_code
            if status != (401 if role == "nobody" else 403):
                wrong.append(f"{role}: {method} {path} answered {status}")
    assert not wrong


@pytest.mark.parametrize(
    "headers",
    [{"X-CSRF-Token": ""}, {"X-CSRF-Token": "x" * 32}, {"Origin": "https://evil.example"}],
    ids=["no token", "another token", "another site"],
)
def test_nothing_changes_without_the_sessions_token(client, cast, sign_in, headers) -> None:
    wrong = []
    for role, person in {"crowdworker": cast.alice, "researcher": cast.rosa, "admin": cast.ada}.items():
        sign_in(person)
        for method, path in ROUTES:
            roles = allowed(method, path)
            if method in SAFE_METHODS or role not in roles or "nobody" in roles:
                continue
            status = client.request(method, address(path), headers=headers).status_code
            if status != 403:
                wrong.append(f"{role}: {method} {path} answered {status}")
    assert not wrong
