"""Dataset versions, training runs, snapshots, and which snapshots serve which campaign."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, Double, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from server.db import Base, Json, Key, Now


class DatasetVersion(Base):
    """A frozen selection of comparisons with its splits. `sha256` is over the sorted lines of its members."""

    __tablename__ = "dataset_versions"

    id: Mapped[Key]
    sha256: Mapped[str]
    selection: Mapped[Json]  # the filters it was made with
    counts: Mapped[Json]  # pairs by split, mode, campaign
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    created_at: Mapped[Now]


class DatasetMember(Base):
    """A comparison's place in a dataset version. The split is by conversation, never by row."""

    __tablename__ = "dataset_members"
    __table_args__ = (CheckConstraint("split IN ('train','test')", name="split_known"),)

    dataset_version_id: Mapped[int] = mapped_column(
        ForeignKey("dataset_versions.id", ondelete="CASCADE"), primary_key=True
    )
    comparison_id: Mapped[int] = mapped_column(ForeignKey("comparisons.id"), primary_key=True, index=True)
    split: Mapped[str]


class DatasetRanking(Base):
    """A ranking's place in a dataset version."""

    __tablename__ = "dataset_rankings"
    __table_args__ = (CheckConstraint("split IN ('train','test')", name="split_known"),)

    dataset_version_id: Mapped[int] = mapped_column(
        ForeignKey("dataset_versions.id", ondelete="CASCADE"), primary_key=True
    )
    ranking_id: Mapped[int] = mapped_column(ForeignKey("rankings.id"), primary_key=True, index=True)
    split: Mapped[str]


class DatasetEdit(Base):
    """An edit's place in a dataset version: edited over original."""

    __tablename__ = "dataset_edits"
    __table_args__ = (CheckConstraint("split IN ('train','test')", name="split_known"),)

    dataset_version_id: Mapped[int] = mapped_column(
        ForeignKey("dataset_versions.id", ondelete="CASCADE"), primary_key=True
    )
    edit_id: Mapped[int] = mapped_column(ForeignKey("edits.id"), primary_key=True, index=True)
    split: Mapped[str]


class Run(Base):
    """One training job: a folder with config and data in, metrics, checkpoint and result out."""

    __tablename__ = "runs"
    __table_args__ = (
        CheckConstraint("job IN ('preference','policy','evaluate')", name="job_known"),
        CheckConstraint("status IN ('queued','running','done','failed','cancelled')", name="status_known"),
    )

    id: Mapped[Key]
    job: Mapped[str]
    folder: Mapped[str]  # below the artifacts root
    config: Mapped[Json]
    status: Mapped[str] = mapped_column(server_default=text("'queued'"))
    progress: Mapped[Json] = mapped_column(server_default=text("'{}'::jsonb"))  # the newest metrics line
    result: Mapped[Json | None]
    failure: Mapped[str | None]
    dataset_version_id: Mapped[int | None] = mapped_column(ForeignKey("dataset_versions.id"))
    created_at: Mapped[Now]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Snapshot(Base):
    """A servable model: files with their hashes, an OpenAI-compatible endpoint, or the best of k replies; and what made it."""

    __tablename__ = "snapshots"
    __table_args__ = (
        CheckConstraint("kind IN ('policy','pm')", name="kind_known"),
        CheckConstraint("backend IN ('local','openai')", name="backend_known"),
        CheckConstraint("origin IN ('initial','round','best_of','registered')", name="origin_known"),
        # A best-of snapshot has no files of its own: a path kept twice would go stale, as when the starter's clone moves.
        CheckConstraint("backend <> 'local' OR origin = 'best_of' OR path IS NOT NULL", name="local_has_path"),
        CheckConstraint("backend <> 'openai' OR endpoint IS NOT NULL", name="openai_has_endpoint"),
        CheckConstraint("name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'", name="name_shape"),
        CheckConstraint(
            "num_nonnulls(draws_from_id, scored_by_id, k) = CASE WHEN origin = 'best_of' THEN 3 ELSE 0 END",
            name="best_of_whole",
        ),
        CheckConstraint(
            "origin <> 'best_of' OR (kind = 'policy' AND backend = 'local' AND path IS NULL)", name="best_of_is_policy"
        ),
        CheckConstraint("k BETWEEN 2 AND 64", name="k_within"),
    )

    id: Mapped[Key]
    name: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    backend: Mapped[str] = mapped_column(server_default=text("'local'"))
    origin: Mapped[str]
    path: Mapped[str | None]  # below the artifacts root, or absolute for a registered directory
    endpoint: Mapped[Json | None]  # base_url, model, api_key_variable
    manifest: Mapped[Json]  # file -> sha256, and what training wrote about it
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("snapshots.id"))  # the initial policy it grew from
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    round_id: Mapped[int | None] = mapped_column(
        ForeignKey("rounds.id", use_alter=True, name="fk_snapshots_round_id_rounds")
    )
    dataset_version_id: Mapped[int | None] = mapped_column(ForeignKey("dataset_versions.id"))
    # Of origin best_of alone: it answers with that of `k` replies of one policy which one preference model scores highest.
    draws_from_id: Mapped[int | None] = mapped_column(ForeignKey("snapshots.id"))
    scored_by_id: Mapped[int | None] = mapped_column(ForeignKey("snapshots.id"))
    k: Mapped[int | None]
    created_at: Mapped[Now]
    retired_at: Mapped[datetime | None]

    draws_from: Mapped[Snapshot | None] = relationship(foreign_keys=draws_from_id, remote_side="Snapshot.id")
    scored_by: Mapped[Snapshot | None] = relationship(foreign_keys=scored_by_id, remote_side="Snapshot.id")


class Deployment(Base):
    """Which policy snapshots serve a campaign, with what share, from when. One is current: `replaced_at` is empty."""

    __tablename__ = "deployments"
    __table_args__ = (
        Index("uq_deployments_current", "campaign_id", unique=True, postgresql_where=text("replaced_at IS NULL")),
        Index("ix_deployments_campaign_id_id", "campaign_id", "id"),
    )

    id: Mapped[Key]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"))
    round_id: Mapped[int | None] = mapped_column(
        ForeignKey("rounds.id", use_alter=True, name="fk_deployments_round_id_rounds")
    )
    reason: Mapped[str]
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    created_at: Mapped[Now]
    replaced_at: Mapped[datetime | None]

    shares: Mapped[list[DeploymentShare]] = relationship(order_by="DeploymentShare.snapshot_id")


class DeploymentShare(Base):
    """A snapshot's weight in a deployment; the weights are relative, they need not add up to one."""

    __tablename__ = "deployment_shares"
    __table_args__ = (
        CheckConstraint("share > 0", name="share_positive"),
        UniqueConstraint("deployment_id", "snapshot_id"),
    )

    id: Mapped[Key]
    deployment_id: Mapped[int] = mapped_column(ForeignKey("deployments.id", ondelete="CASCADE"))
    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshots.id"))
    share: Mapped[float] = mapped_column(Double)

    snapshot: Mapped[Snapshot] = relationship(lazy="joined")
