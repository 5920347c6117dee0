"""What the environment may say about OpenID Connect providers, and what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.settings import SettingsError, load_settings

ONE = {
    "WHETSTONE_OPENID": "lab",
    "WHETSTONE_OPENID_LAB_ISSUER": "https://issuer.example",
    "WHETSTONE_OPENID_LAB_CLIENT_ID": "id",
    "WHETSTONE_OPENID_LAB_CLIENT_SECRET": "the secret",
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"WHETSTONE_OPENID_LAB_ISSUER": ""},
        {"WHETSTONE_OPENID_LAB_ISSUER": "http://issuer.example"},
        {"WHETSTONE_OPENID_LAB_ISSUER": "https://issuer.example?x=1"},
        {"WHETSTONE_OPENID_LAB_CLIENT_SECRET": ""},
        {"WHETSTONE_OPENID_LAB_OPEN": "perhaps"},
        {"WHETSTONE_OPENID": "lab,lab"},
        {"WHETSTONE_OPENID": "Lab!"},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="WHETSTONE_OPENID"):
        load_settings({"WHETSTONE_HOME": str(tmp_path), **ONE, **wrong})


def test_providers_survive_the_way_to_a_child(tmp_path: Path) -> None:
    more = {"WHETSTONE_OPENID": "lab, my-other", "WHETSTONE_OPENID_LAB_OPEN": "1"}
    other = {name.replace("_LAB_", "_MY_OTHER_"): value for name, value in ONE.items() if "_LAB_" in name}
    found = load_settings({"WHETSTONE_HOME": str(tmp_path), **ONE, **other, **more}).connected(
        "postgresql://db/w", "redis://r/0"
    )
    assert load_settings(found.environment()).providers == found.providers
    assert [(each.name, each.open) for each in found.providers] == [("Lab", True), ("My-other", False)]
    assert "the secret" not in repr(found)
