"""The board as a browser gets it: markup and script, and the names both sides of it share."""

import re

import pytest

from app.page.components import SCRIPTS, STATIC, board_markup, board_script, read_static
from app.page.messages import FORCED, STOP
from d2f.events import BLOCK_STATES

SCRIPT_BYTES = 46_000  # every visitor loads it


def lane_markup(index: int) -> str:
    (found,) = re.findall(
        rf'<section class="lane" data-lane="{index}".*?</section>', board_markup(), re.DOTALL
    )
    return found


@pytest.mark.parametrize(
    ("index", "name", "decoder", "model", "title", "grid"),
    [
        (0, "D2F", "d2f", "block diffusion", "Mask grid", "D2F mask grid"),
        (1, "AR", "ar", "one token at a time", "Token grid", "AR token grid"),
    ],
)
def test_a_lane_is_named_in_words_and_for_screen_readers(
    index: int, name: str, decoder: str, model: str, title: str, grid: str
) -> None:
    lane = lane_markup(index)
    assert f'data-decoder="{decoder}"' in lane
    assert re.findall(r'aria-label="(.*?)"', lane) == [
        f"{name} lane",
        grid,
        f"Copy {name} answer",
        f"{name} answer",
    ]
    assert re.findall(r"<h[23]>(.*?)</h[23]>", lane) == [
        f'<span class="lane-name">{name}</span> <span class="lane-model">{model}</span>',
        title,
        "Answer",
    ]
    assert re.findall(r'data-figure="(.*?)"', lane) == [
        "tps",
        "tokens",
        "forwards",
        "tpf",
        "seconds",
    ]


def test_a_browser_gets_the_code_without_the_comments() -> None:
    script = board_script()
    assert len(script.encode()) < SCRIPT_BYTES
    assert not re.search(r"^\s*(//|/\*|\*)", script, re.MULTILINE)
    for name in SCRIPTS:  # the code on both sides of each comment is there
        code = [line for line in read_static(name).splitlines() if re.match(r"[a-z}]", line)]
        assert "\n".join(code) in "\n".join(
            line for line in script.splitlines() if re.match(r"[a-z}]", line)
        )


def test_every_script_is_checked_and_sent() -> None:
    scripts = {path.name for path in STATIC.glob("*.js")}
    assert scripts == {*SCRIPTS, "messages.js"}  # types alone
    for name in scripts:
        assert read_static(name).startswith("// @ts-check\n"), name


def test_flags_and_states_are_those_of_the_server() -> None:
    script = board_script()
    assert re.findall(r"const (FORCED|STOP) = (\d);", script) == [
        ("FORCED", str(FORCED)),
        ("STOP", str(STOP)),
    ]
    states = ["waiting", *BLOCK_STATES]
    assert re.findall(r"^  (\w+): \{ word:", script, re.MULTILINE) == states
    assert re.findall(r'data-frame="(\w+)"', board_markup()) == states


def test_buttons_that_the_scripts_look_for_are_on_the_page() -> None:
    layout = (STATIC.parent / "page" / "layout.py").read_text(encoding="utf-8")
    page = set(re.findall(r'elem_id="([\w-]+)"', layout))
    page |= set(re.findall(r'id="([\w-]+)"', read_static("header.html")))
    script = board_script()
    asked = set(re.findall(r"(?:closest|querySelector)\('#([\w-]+)", script))
    asked |= set(re.findall(r"outside\('([\w-]+)'\)", script))
    (pair,) = re.findall(r"\[('\w+', '\w+')\]\.map\(outside\)", script)
    asked |= set(re.findall(r"\w+", pair))
    assert asked == {"run", "stop", "copy-link", "publish", "charts", "redraw", "opener", "tour"}
    assert asked <= page
