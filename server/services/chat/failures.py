"""What people are told when a model gives no reply, where the page has to know which it is."""

from __future__ import annotations

from server.language import later

TOO_LONG = later(
    "Your message is too long for the model that answers here. Start a new conversation with a shorter one."
)
