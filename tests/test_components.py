"""The board as a browser gets it: markup and script, and the names both sides of it share."""

import re

import pytest

from app.page.components import (
    CHAT,
    COMMENTS,
    SCRIPTS,
    STATIC,
    board_markup,
    board_script,
    read_static,
)
from app.page.messages import FORCED, STOP
from d2f.events import BLOCK_STATES

SCRIPT_BYTES = 80_000  # every visitor loads it


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
        f"{name} answer",
        f"Copy {name} answer",
    ]
    assert re.findall(r"<h[23].*?>(.*?)</h[23]>", lane) == [
        f'<span class="lane-name">{name}</span> <span class="lane-model">{model}</span>',
        title,
        "Answer",
    ]
    assert re.findall(r'data-figure="(.*?)"', lane) == [
        "tokens",
        "forwards",
        "tpf",
        "seconds",
        "tps",
    ]


def test_a_browser_gets_the_code_without_the_comments() -> None:
    script = board_script(chat=True)
    assert len(script.encode()) < SCRIPT_BYTES
    assert not re.search(r"^\s*(//|/\*|\*)", script, re.MULTILINE)
    for name in SCRIPTS:  # the code on both sides of each comment is there
        code = [line for line in read_static(name).splitlines() if re.match(r"[a-z}]", line)]
        assert "\n".join(code) in "\n".join(
            line for line in script.splitlines() if re.match(r"[a-z}]", line)
        )


def test_a_comment_that_ends_before_its_line_does_takes_no_code_along() -> None:
    kept = "/** @type {A} */ (a).b = 1;\nc();\n"
    assert (
        COMMENTS.sub("", f"/** one */\n  // two\n{kept}  /**\n * three **/\nd();\n")
        == f"{kept}d();\n"
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
    page |= set(re.findall(r'id="([\w-]+)"', read_static("bar.html")))
    script = board_script(chat=True)
    asked = set(re.findall(r"(?:closest|querySelector)\('#([\w-]+)", script))
    asked |= set(re.findall(r"outside\('([\w-]+)'\)", script))
    assert asked == {"copy-link", "publish", "charts", "redraw", "tour"}
    assert asked <= page


def test_an_exported_race_has_the_board_alone() -> None:
    whole, alone = board_markup(chat=True), board_markup()
    for part in ("composer", "drawer", "picker"):
        assert part in whole and part not in alone
    for script in CHAT:
        assert read_static(script).splitlines()[-1] in board_script(chat=True)
    assert "localStorage" not in board_script() and "trigger(" not in board_script()


def test_markup_holds_nothing_that_gradio_would_take_for_a_template() -> None:
    assert not re.search(r"\$\{|\{\{|`|\\\\", board_markup(chat=True))


def test_libraries_come_with_their_licences_and_versions() -> None:
    folder = STATIC / "libraries"
    scripts = {path.name.split(".")[0] for path in folder.glob("*.js")}
    assert scripts == {path.stem for path in folder.glob("*.LICENSE")} == {"markdown-it", "purify"}
    told = (folder / "README.md").read_text(encoding="utf-8")
    version = re.search(r"DOMPurify ([\d.]+)", (folder / "purify.min.js").read_text("utf-8"))[1]
    assert f"DOMPurify](https://github.com/cure53/DOMPurify) {version}" in told
    for path in folder.glob("*.js"):
        assert path.name in told and path.name in read_static("markdown.js")
        assert "sourceMappingURL" not in path.read_text("utf-8")
