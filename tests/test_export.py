"""A race as one offline file: what it holds, and what it cannot do."""

import json
import re
from dataclasses import replace

from races import ar_trace, d2f_trace, token_text

from app.conversation import Exchange
from app.export import main, page
from app.lanes.lane import recorded_lane
from app.recordings.recording import Recording, record

HOSTILE = "</script><script>alert(1)</script><!--board-->/*css*/"


def recording(prompt: str = "Count.") -> Recording:
    lanes = [
        recorded_lane("D2F", d2f_trace(), token_text),
        recorded_lane("AR", ar_trace(), token_text),
    ]
    for lane in lanes:
        while lane.advance():
            pass
    return record(prompt, lanes, "Both answers are correct.")


def messages(html: str) -> list[dict]:
    (packed,) = re.findall(r'<script type="application/json" id="race">(.*)</script>', html)
    return json.loads(packed)["messages"]


def test_the_file_holds_the_race_and_no_marker():
    html = page(recording())
    told = messages(html)
    assert [message["kind"] for message in told] == ["start", *["step"] * 9, "end"]
    assert told[-1]["lanes"][0]["metrics"] == d2f_trace().metrics
    assert "class Lane" in html and 'class="arena"' in html and "--d2f-tint" in html
    assert not re.search(r"/\*(css|script)\*/|<!--(header|board|race)-->", html)


def test_the_file_loads_nothing():
    html = page(recording())
    assert "default-src 'none'" in html
    assert set(re.findall(r"https?://[^\"' )]+", html)) == {"http://www.w3.org/2000/svg"}


def test_hostile_text_stays_text():
    html = page(recording(HOSTILE))
    assert html.count("<script") == page(recording()).count("<script")
    assert messages(html)[0]["lanes"][0]["chat"] == [HOSTILE]
    past = (Exchange(HOSTILE, (HOSTILE, "")),)
    html = page(replace(recording(), past=past))
    assert html.count("<script") == page(recording()).count("<script")
    assert messages(html)[0]["lanes"][0]["chat"] == [HOSTILE, HOSTILE, "Count."]


def test_the_command_writes_the_file_or_says_why_not(tmp_path, capsys):
    trace = tmp_path / "race.json"
    trace.write_text(recording().to_json())
    assert main([str(trace)]) == 0
    assert messages((tmp_path / "race.html").read_text())[0]["kind"] == "start"
    assert "race.html" in capsys.readouterr().out
    trace.write_text("{}")
    for bad, said in (
        ([trace], "This file cannot be opened: it is not a race."),
        ([tmp_path / "nowhere.json"], f"{tmp_path / 'nowhere.json'} cannot be read: No such file"),
        ([tmp_path, "-o", tmp_path / "x.html"], f"{tmp_path} cannot be read: Is a directory"),
        ([trace, "-o", tmp_path], "--output must be a file in an existing folder, got "),
    ):
        assert main([str(part) for part in bad]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(f"app.export: {said}") and err.count("\n") == 1
