"""What else D2F can race on the page: the pair's other decoders, and a faster AR.

Each is a pair of its own, to be picked like any other. Knows nothing of lanes or machines.
"""

from collections.abc import Iterator
from dataclasses import replace

from d2f.catalogue.pairs import Pair
from d2f.policy import kind_of

DRAFTED = 8  # tokens a forward that the AR lane with prompt lookup drafts


def lane_name(pair: Pair, decoder: str) -> str:
    """What a lane of the pair is called."""
    label = kind_of(decoder).label
    return f"{label} + lookup" if decoder == "ar" and pair.lookup else label


def rivals(pair: Pair) -> Iterator[Pair]:
    """The pair with each other lane in place of the AR one."""
    if not pair.lookup:
        title = f"{pair.d2f} against {pair.ar} with prompt lookup"
        yield replace(pair, name=f"{pair.name}-ar-lookup", title=title, rival="ar", lookup=DRAFTED)
    for decoder in (each for each in pair.lanes if each not in ("d2f", "ar")):
        model, _ = pair.lanes[decoder]
        title = f"{pair.d2f} against {model}: {kind_of(decoder).label}"
        yield replace(pair, name=f"{pair.name}-{decoder}", title=title, rival=decoder)
