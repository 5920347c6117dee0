"""Registering snapshots and noticing what has changed in their files."""

import json

import pytest

from server.errors import BadInput, Conflict, NotFound
from server.models import AuditEntry
from server.services.snapshots import registry
from tests import factories

FILES = {"files": {"model.safetensors": {"sha256": "0" * 64, "bytes": 1}}}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "manifest.json").write_text(json.dumps({"not": "hashed"}))
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "note").write_text("not hashed")
    return tmp_path


def test_hashes_leave_out_the_manifest_and_hidden_files(folder):
    assert sorted(registry.folder_hashes(folder)) == ["config.json", "model.safetensors"]
    # printf weights | sha256sum
    assert registry.folder_hashes(folder)["model.safetensors"] == {
        "sha256": "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c",
        "bytes": 7,
    }


def test_every_kind_of_change_is_named(folder):
    manifest = registry.folder_manifest(folder)
    assert registry.difference(folder, manifest) is None
    (folder / "more.json").write_text("{}")
    assert "more.json was not there" in registry.difference(folder, manifest)
    (folder / "more.json").unlink()
    (folder / "model.safetensors").write_bytes(b"weighty")
    assert "model.safetensors is damaged" in registry.difference(folder, manifest)
    (folder / "model.safetensors").unlink()
    assert "model.safetensors is missing" in registry.difference(folder, manifest)
    assert "is missing" in registry.difference(folder / "nowhere", manifest)
    assert "no hashes" in registry.difference(folder, {})


def test_a_policy_is_stored_with_its_lineage_and_an_audit_entry(db, cast):
    first = registry.register_policy(db, name="first", origin="initial", path="snapshots/first", manifest=FILES)
    second = registry.register_policy(
        db, name="second", origin="round", path="snapshots/second", manifest=FILES, parent=first, person=cast.ada
    )
    assert (second.backend, second.parent_id, second.kind) == ("local", first.id, "policy")
    assert registry.find_snapshot(db, "second") is second
    assert registry.snapshots(db)[:2] == [second, first]
    assert (
        db.query(AuditEntry).filter_by(object_id=second.id, action="snapshot.register").one().person_id == cast.ada.id
    )


@pytest.mark.parametrize("name", ["", "../up", "a b", "-x", "x" * 101, "é"])
def test_a_name_that_could_not_be_a_folder_is_refused(db, name):
    with pytest.raises(BadInput, match="name"):
        registry.register_policy(db, name=name, origin="initial", path="p", manifest=FILES)


def test_a_taken_name_a_missing_place_and_missing_hashes_are_refused(db):
    registry.register_policy(db, name="first", origin="initial", path="p", manifest=FILES)
    with pytest.raises(Conflict, match="first already"):
        registry.register_policy(db, name="first", origin="initial", path="p", manifest=FILES)
    with pytest.raises(BadInput, match="either"):
        registry.register_policy(db, name="second", origin="initial", manifest=FILES)
    with pytest.raises(BadInput, match="hashes"):
        registry.register_policy(db, name="second", origin="initial", path="p", manifest={"files": {}})
    with pytest.raises(NotFound, match="second"):
        registry.find_snapshot(db, "second")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"base_url": "ftp://host"}, "https://host/v1"),
        ({"base_url": "https://me:secret@host/v1"}, "password"),
        ({"base_url": "https://host/v1?key=1"}, "query"),
        ({"model": ""}, "model"),
        ({"api_key_variable": "sk-123"}, "never the key"),
        ({"api_key": "sk-123"}, "no setting 'api_key'"),
    ],
)
def test_an_endpoint_that_cannot_be_or_holds_a_secret_is_refused(db, change, word):
    endpoint = {"base_url": "https://host/v1/", "model": "m", "api_key_variable": "KEY"}
    assert registry.checked_endpoint(endpoint)["base_url"] == "https://host/v1"
    with pytest.raises(BadInput, match=word):
        registry.register_policy(db, name="remote", origin="registered", endpoint=endpoint | change)


def test_a_serving_snapshot_cannot_be_retired(db):
    snapshot = factories.snapshot(db)
    factories.campaign(db, served_by=snapshot)
    with pytest.raises(Conflict, match="serves"):
        registry.retire(db, snapshot)
    other = factories.snapshot(db)
    registry.retire(db, other)
    assert other.retired_at is not None


def test_the_starter_is_registered_once_and_again_only_when_its_weights_change(db, folder, monkeypatch):
    def ship(weights: bytes):
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "manifest.json").write_text(json.dumps(registry.folder_manifest(folder)))

    monkeypatch.setattr(registry, "STARTER_FOLDER", folder)
    ship(b"first")
    first = registry.starter_snapshot(db)
    assert (first.name, first.path) == ("starter", str(folder))
    assert registry.starter_snapshot(db) is first
    ship(b"second")
    second = registry.starter_snapshot(db)
    assert second.name.startswith("starter-")
    assert registry.starter_snapshot(db) is second
    (folder / "manifest.json").unlink()
    with pytest.raises(NotFound, match="restore"):
        registry.starter_snapshot(db)
