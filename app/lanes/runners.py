"""Pairs whose lanes run elsewhere, or otherwise, than in this process's engine.

The operator names them when the page starts; a visitor only picks among them. Knows nothing of
lanes or HTTP.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from d2f.catalogue.pairs import Pair, embedded_models
from d2f.errors import InvalidInput

from .rivals import lane_name
from .server import Server, read_key
from .transformers import LABEL


@dataclass(frozen=True)
class Transformers:
    """A lane decoded by transformers' own ``generate`` from the pair's model folder."""


Runner = Server | Transformers


@dataclass(frozen=True)
class RivalPair(Pair):
    """A pair with another runner than the engine for some of its decoders."""

    runners: Mapping[str, Runner] = field(default_factory=dict)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command line's way to name them."""
    group = parser.add_argument_group(
        "other lanes",
        "The pair with these lanes is added to the page and chosen at first. Keys, if any, come "
        "from the environment: OPENAI_API_KEY for --ar-url, D2F_API_KEY for d2f.serve.",
    )
    group.add_argument(
        "--ar", metavar="NAME", help="another AR model of the catalogue, see python -m d2f models"
    )
    group.add_argument(
        "--ar-url",
        metavar="URL",
        help="OpenAI-compatible server as AR lane, such as http://host:8000/v1",
    )
    group.add_argument("--ar-model", metavar="NAME", help="the model asked for at --ar-url")
    group.add_argument(
        "--ar-events", metavar="URL", help="d2f.serve as AR lane, such as http://host:8000/v1"
    )
    group.add_argument("--d2f-events", metavar="URL", help="d2f.serve as D2F lane")
    group.add_argument(
        "--ar-transformers", action="store_true", help="transformers' own generate as AR lane"
    )


def chosen_runners(args: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, Runner]:
    """The runner of each lane that the engine does not decode here."""
    ways = [args.ar_url, args.ar_events, args.ar_transformers or None]
    if sum(way is not None for way in ways) > 1:
        raise InvalidInput("--ar-url, --ar-events and --ar-transformers exclude each other")
    if args.ar is not None and (args.ar_url or args.ar_events):
        raise InvalidInput("--ar is a model run here: not with --ar-url or --ar-events")
    if (args.ar_url is None) != (args.ar_model is None):
        raise InvalidInput("--ar-url and --ar-model go together")

    def key(name: str) -> str:
        return read_key(name, environment.get(name, ""))

    runners: dict[str, Runner] = {}
    if args.d2f_events is not None:
        runners["d2f"] = Server(args.d2f_events, protocol="events", key=key("D2F_API_KEY"))
    if args.ar_events is not None:
        runners["ar"] = Server(args.ar_events, protocol="events", key=key("D2F_API_KEY"))
    if args.ar_url is not None:
        runners["ar"] = Server(args.ar_url, args.ar_model, key=key("OPENAI_API_KEY"))
    if args.ar_transformers:
        runners["ar"] = Transformers()
    return runners


def trained_lanes(pair: Pair) -> list[str]:
    """The names of the pair's lanes whose models learned the tasks' own form of answers, here.

    Nobody here knows what another machine runs, whatever its name.
    """
    runners = pair.runners if isinstance(pair, RivalPair) else {}
    own = [each for each in pair.racing if not isinstance(runners.get(each), Server)]
    return [lane_name(pair, each) for each in own if pair.lanes[each][0] in embedded_models()]


def rival_pair(pair: Pair, runners: Mapping[str, Runner]) -> RivalPair:
    """The pair with these lanes run elsewhere, under a name and title that say so."""
    own = {each.name: getattr(pair, each.name) for each in fields(Pair)}
    told = [_told(decoder, runner) for decoder, runner in runners.items()]
    names = {d: r.model for d, r in runners.items() if isinstance(r, Server) and r.model}
    changes: dict[str, Any] = {
        "name": f"{pair.name}-{'-'.join(_word(d, r) for d, r in runners.items())}",
        "title": f"{pair.name}, with {' and '.join(told)}",
    }
    return RivalPair(**own | names | changes, runners=runners)


def _told(decoder: str, runner: Runner) -> str:
    lane = decoder.upper()
    if isinstance(runner, Transformers):
        return f"{lane} by {LABEL}"
    if runner.protocol == "events":
        return f"{lane} at {runner.host}"
    return f"{lane} {runner.model} at {runner.host}, timed at the client"


def _word(decoder: str, runner: Runner) -> str:
    return "transformers" if isinstance(runner, Transformers) else f"{decoder}-remote"
