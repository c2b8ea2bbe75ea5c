"""The page in a process of its own, as ``python app.py`` has it on a CPU, for ``measure.py``.

``python measured_page.py PORT`` serves the page. A line of JSON on its input, a list of prompts, is
answered on its output: tokens/s of both lanes on each prompt, raced by the same models with nobody
at the page.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2]))

from app.conversation import Conversation
from app.lanes.lane import Host, Question
from app.lanes.process import Apart, give_way, lanes_apart
from app.page.layout import build, launch_options
from app.race import DEVICE, never
from d2f.catalogue.pairs import PAIRS


def alone(host: Host, prompts: Sequence[str]) -> list[list[float]]:
    pair, speeds = PAIRS["mini"], []
    for prompt in prompts:
        question = Question(pair, prompt, pair.config, Conversation("mini"))
        lanes, moves = host.elsewhere(question, host, never)
        for _ in moves:
            pass
        speeds.append([lane.trace.tokens_per_second for lane in lanes])
    return speeds


def main() -> None:
    apart = Apart()
    DEVICE.submit(apart.start).result()
    give_way()
    host = Host()
    host = replace(host, elsewhere=lanes_apart(apart))
    with TemporaryDirectory() as traces:  # an empty one: no recorded race plays at first
        demo = build("mini", host, Path(traces))
        demo.launch(
            server_port=int(sys.argv[1]), prevent_thread_lock=True, quiet=True, **launch_options()
        )
        for line in sys.stdin:
            print(json.dumps(DEVICE.submit(alone, host, json.loads(line)).result()), flush=True)
        demo.close(verbose=False)
    apart.close()


if __name__ == "__main__":
    main()
