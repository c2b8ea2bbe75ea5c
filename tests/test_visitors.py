"""One run a visitor and a few an address; who sent a request, as far as that can be known."""

from contextlib import ExitStack

import gradio as gr
import pytest
from starlette.requests import Request

from app.page.visitors import TooManyRuns, Visitor, Visitors, internet_address, visitor


def request(session: str | None, host: str | None = "127.0.0.1", **headers: str) -> gr.Request:
    """A request as Gradio hands it to a handler."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    client = host and (host, 5000)
    return gr.Request(
        Request({"type": "http", "headers": raw, "client": client}), session_hash=session
    )


def test_a_visitors_new_run_ends_the_one_before_and_no_others():
    visitors, me, you = Visitors(), Visitor("me"), Visitor("you")
    with visitors.run(you) as yours:
        with visitors.run(me) as first:
            with visitors.run(me) as second:
                assert first.is_set() and not second.is_set()
        with visitors.run(me) as third:
            assert not second.is_set() and not third.is_set(), "what is over is forgotten"
        assert not yours.is_set()


def test_the_end_of_an_earlier_run_does_not_hide_the_new_one():
    visitors, me = Visitors(), Visitor("me")
    with ExitStack() as earlier:
        earlier.enter_context(visitors.run(me))
        with visitors.run(me) as stop:
            earlier.close()
            visitors.stop("me")
            assert stop.is_set()


def test_a_visitors_run_can_be_stopped_and_no_others():
    visitors = Visitors()
    with visitors.run(Visitor("you")) as yours:
        with visitors.run(Visitor("me")) as mine:
            visitors.stop("me")
            visitors.stop("nobody")
            assert mine.is_set() and not yours.is_set()
    visitors.stop("you")
    assert not yours.is_set(), "what is over is forgotten"


def test_an_address_has_a_few_runs_and_one_without_any_number():
    visitors = Visitors(at_once=2)
    with ExitStack() as runs:
        one, two = (Visitor(name, "8.8.8.8") for name in ("one", "two"))
        for each in (one, two):
            first = runs.enter_context(visitors.run(each))
        with pytest.raises(TooManyRuns, match="^2 runs from your address"):
            runs.enter_context(visitors.run(Visitor("three", "8.8.8.8")))
        runs.enter_context(visitors.run(two))
        assert first.is_set(), "a new run in the place of the visitor's own"
        runs.enter_context(visitors.run(Visitor("three", "9.9.9.9")))
        for number in range(5):
            runs.enter_context(visitors.run(Visitor(f"private {number}")))
    with visitors.run(Visitor("three", "8.8.8.8")), visitors.run(one):
        pass


def test_a_visitor_is_a_session_and_an_address_of_the_internet():
    assert visitor(request("abc", "8.8.8.8")) == Visitor("abc", "8.8.8.8")
    assert visitor(request("abc")) == Visitor("abc")
    assert visitor(request("abc", None)) == Visitor("abc"), "a socket has no address"


def test_who_has_no_session_of_their_own_is_somebody_new_each_time():
    for asked in (request(None), request("gradio", x_gradio_user="mcp")):
        first, second = visitor(asked), visitor(asked)
        assert first.session != second.session and "gradio" not in (first.session, second.session)
    assert visitor(request("abc", x_gradio_user="api")).session == "abc"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("8.8.8.8", "8.8.8.8"),
        ("::ffff:8.8.8.8", "8.8.8.8"),
        ("2a00:1450:4001:80e::200e", "2a00:1450:4001:80e::/64"),
        ("2a00:1450:4001:80e:1:2:3:4", "2a00:1450:4001:80e::/64"),
        ("127.0.0.1", None),
        ("10.16.3.80", None),
        ("192.168.0.7", None),
        ("::1", None),
        ("::ffff:10.0.0.1", None),
        ("fe80::1%eth0", None),
        ("fd00::1", None),
        ("100.64.0.1", None),
        ("testclient", None),
        ("", None),
    ],
)
def test_only_addresses_of_the_internet_count(host: str, address: str | None):
    assert internet_address(host) == address
