"""A sequence of tokens of which some are learnt."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A sequence of tokens and the columns of those that are learnt, ascending; the first token never is."""

    tokens: list[int]
    learnt: list[int]
