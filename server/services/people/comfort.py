"""How a person likes the pages: light or dark, and which key does what. Kept with the account, delivered to each page as data.

A shortcut is one character, so that it must be possible to move it and to switch all of them off (WCAG 2.1.4): dictation
software says letters, and a shaky hand hits neighbours. Enter on a chosen step is the form's own way and no shortcut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.errors import BadInput
from server.language import _, later
from server.models import Person

THEMES = {"auto": later("As the device is set"), "light": later("Light"), "dark": later("Dark")}
THEME_COOKIE = "whetstone_theme"
MOST_STEPS = 8
OFF = "off"  # stored beside the keys: no shortcut works
# What each action's key is until the person says otherwise; empty is no key.
DEFAULT_KEYS: Mapping[str, str] = {
    **{f"step_{number}": str(number) for number in range(1, MOST_STEPS + 1)},
    "tie": "0",
    "both_bad": "9",
    "send": "",
    "undo": "u",
    "skip": "s",
    "report": "r",
    "message": "m",
    "sheet": "?",
}
_STEP = later("Step {n} of the scale")
_ACTIONS = {
    "tie": later("Both are about equal"),
    "both_bad": later("Both are bad"),
    "send": later("Send the choice (Enter always does)"),
    "undo": later("Take the last answer back"),
    "skip": later("Skip"),
    "report": later("Report a problem"),
    "message": later("Go to the message box"),
    "sheet": later("Show the list of keys"),
}


def says(action: str) -> str:
    """What an action does, in the language in use."""
    if action in _ACTIONS:
        return _(_ACTIONS[action])
    return _(_STEP, n=int(action.removeprefix("step_")))


def keys_of(stored: Mapping[str, Any]) -> dict[str, str]:
    """Action to key as this person has set them; all empty when they switched shortcuts off."""
    if stored.get(OFF):
        return dict.fromkeys(DEFAULT_KEYS, "")
    return {action: str(stored.get(action, key)) for action, key in DEFAULT_KEYS.items()}


def chosen_keys(stored: Mapping[str, Any]) -> dict[str, str]:
    """The same, whether or not they are switched off now."""
    return keys_of({action: key for action, key in stored.items() if action != OFF})


def set_keys(person: Person, typed: Mapping[str, str], *, off: bool) -> None:
    """Store what differs from the defaults; BadInput names the first action whose key cannot be."""
    keys = {action: _one_key(action, typed.get(action, key)) for action, key in DEFAULT_KEYS.items()}
    taken: dict[str, str] = {}
    for action, key in keys.items():
        if key and key in taken:
            raise BadInput(
                _("{key} already stands for: {action}. Each key can do one thing.", key=key, action=says(taken[key])),
                field=action,
            )
        taken[key] = action
    changed: dict[str, Any] = {action: key for action, key in keys.items() if key != DEFAULT_KEYS[action]}
    person.keys = changed | ({OFF: True} if off else {})


def _one_key(action: str, typed: str) -> str:
    key = typed.strip().lower()
    if len(key) > 1 or not key.isprintable():
        raise BadInput(_("A key is one character, such as x or 5; leave the box empty for none."), field=action)
    return key


def set_theme(person: Person, theme: str) -> None:
    """Light, dark, or as the device is set."""
    person.theme = known_theme(theme)


def known_theme(theme: str) -> str:
    """The theme, if there is such a one."""
    if theme not in THEMES:
        raise BadInput(_("There is no such look. Choose one from the list."), field="theme")
    return theme


def theme_for(chosen: str | None, cookie: str | None) -> str:
    """The account's choice, else the browser's, else as the device is set."""
    return next((theme for theme in (chosen, cookie) if theme in THEMES and theme != "auto"), "auto")
