"""Which levels a model is served at: those that the endpoint names, or a recommender's own. No torch."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from tradewind import names
from tradewind.errors import SpecError
from tradewind.serve.catalogue import DEFAULT_K
from tradewind.serve.errors import RequestError
from tradewind.spec import QualityLevel

RETRIEVED = 100
"""Items that a level without ranking retrieves."""
PARTS = (0.7, 0.5, 0.35, 0.2)
"""Of the candidates, how many each level ranks after the full one. Between two levels' capacities both are used in
turn, and lose as much as they are apart: small steps lose little."""
PRERANKED = (0.3, 0.15, 0.08)
"""The same where a light ranker says which: it loses less with fewer of them."""
FEWER = (0.7, 0.5, 0.25)
"""Of how many after that the last part is ranked: to find many costs more than to rank a few."""
LIGHT = (0.2, 0.08)
"""Of how many after that the light ranker's order is the answer: it takes as long as retrieval's, nearly, and loses less."""
POPULAR = "popular"


class Rung(NamedTuple):
    """One level of a recommender that its workers answer at."""

    name: str
    candidates: int
    """How many are retrieved."""
    rank: bool
    preranked: int = 0
    """How many of them the light ranker puts first; 0 where it is not asked."""


def recommender_rungs(
    levels: Sequence[QualityLevel], candidates: int, programs: Collection[str]
) -> list[Rung]:
    """Return the levels of a recommender with these programs, best first; the popular list is none of them.

    Without any named: all `candidates` ranked; smaller and smaller parts of them; the order of retrieval, alone where
    there is no ranker. Where the package has `prerank` it chooses those parts, in the end of fewer candidates, and its
    own order takes the place of retrieval's. Raises SpecError for levels that this package cannot give.
    """
    named = [level for level in levels if not level.popular]
    if levels and not named:
        raise SpecError(
            "EndpointSpec: levels: a popular list alone is no recommender; name a level before it"
        )
    if not levels:
        named = _usual(candidates, programs)
    return [_rung(level, candidates, programs, bool(levels)) for level in named]


def _usual(candidates: int, programs: Collection[str]) -> list[QualityLevel]:
    full, retrieved = QualityLevel(candidates=candidates), QualityLevel(rank=False)
    if "rank" not in programs:
        return [full]
    if "prerank" not in programs:
        parts = _parts(PARTS, candidates)
        return [full, *(QualityLevel(candidates=part) for part in parts), retrieved]
    parts = _parts(PRERANKED, candidates)
    ranked = [QualityLevel(candidates=candidates, prerank=part) for part in parts]
    few = min(parts, default=candidates)
    fewer = [
        QualityLevel(candidates=count, prerank=few) for count in _parts(FEWER, candidates) if count > few
    ]
    light = [
        QualityLevel(candidates=count, prerank=count, rank=False)
        for count in _parts(LIGHT, candidates) or [candidates]
    ]
    return [full, *ranked, *fewer, *light]


def _parts(shares: Sequence[float], candidates: int) -> list[int]:
    parts = [round(share * candidates) for share in shares]
    return [part for part in parts if part >= DEFAULT_K]


def _rung(level: QualityLevel, candidates: int, programs: Collection[str], stated: bool) -> Rung:
    if level.program is not None:
        raise SpecError(
            f"EndpointSpec: levels: program {level.program!r}: a recommender's levels name no program"
        )
    rank = level.rank and "rank" in programs
    if stated and level.rank and not rank:
        raise SpecError("EndpointSpec: levels: this package has no program 'rank'; write rank: false")
    if level.prerank is not None and "prerank" not in programs:
        raise SpecError("EndpointSpec: levels: this package has no program 'prerank'; leave prerank out")
    whole = rank or level.prerank is not None
    count = min(level.candidates or (candidates if whole else RETRIEVED), candidates)
    if level.prerank is None:
        return Rung(level.name or f"{'rank' if rank else 'retrieve'}-{count}", count, rank)
    left = min(level.prerank, count)
    name = f"rank-{left}-of-{count}" if rank else f"prerank-{count}"
    return Rung(level.name or name, count, rank, left)


def popular_name(levels: Sequence[QualityLevel], popular: Sequence[int]) -> str | None:
    """Return the name of the popular list's level; None where there is none.

    Raises SpecError where one is asked for that the package does not have, or that is not the last.
    """
    if not levels:
        return POPULAR if popular else None
    named = [level for level in levels if level.popular]
    if not named:
        return None
    if named != [levels[-1]]:
        raise SpecError("EndpointSpec: levels: one popular list, as the last level")
    if not popular:
        raise SpecError("EndpointSpec: levels: popular: the package's config names no popular items")
    return named[0].name or POPULAR


def program_levels(levels: Sequence[QualityLevel], programs: Sequence[str]) -> list[str]:
    """Return the programs that stand for one another, best first, of a generic package. Raises SpecError."""
    chosen = []
    for level in levels:
        if level.program is None or level.popular or level.candidates is not None:
            raise SpecError(
                "EndpointSpec: levels: those of a generic package name a program each, and no more"
            )
        if level.program not in programs:
            known = ", ".join(programs)
            raise SpecError(f"EndpointSpec: levels: no program {level.program!r}; the package has {known}")
        chosen.append(level.program)
    return chosen


def floor_of(stated: object, level_names: Sequence[str]) -> int | None:
    """Return the cheapest level that a request accepts, by number; None when it accepts all.

    `stated` is a level's name or its number from 0, the best. Raises RequestError (400) for any other.
    """
    if stated is None:
        return None
    text = str(stated) if isinstance(stated, (str, int)) and not isinstance(stated, bool) else ""
    if text in level_names:
        return level_names.index(text)
    if text.isascii() and text.isdigit() and len(text) < 4:
        return min(int(text), len(level_names) - 1)
    known = ", ".join(level_names)
    raise RequestError(400, f"{names.HEADER_MIN_LEVEL} must be one of {known}, or a number from 0, the best")
