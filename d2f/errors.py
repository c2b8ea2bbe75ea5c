"""Errors told to a person. Each message says in one line what is wrong, why, and what to do.

The command line, the page, its API and the server show a ``D2FError`` as it is. Any other exception
is a fault of the program: they log its traceback and say no more of it than that it happened.
"""


class D2FError(Exception):
    """The root: an error whose message is for the user."""


class InvalidInput(D2FError, ValueError):
    """A value from outside cannot be used; the message names it."""


class LoadError(D2FError, ValueError):
    """A model or an adapter cannot be loaded."""


class HubError(LoadError):
    """A repository of the hub cannot be had."""


class TooLittleMemory(LoadError):
    """A model needs more memory than is free."""


class ComputeError(D2FError, ArithmeticError):
    """A computation gave no usable numbers."""


def one_line(value: object, most: int = 200) -> str:
    """A value's text inside a message: one printable line of at most ``most`` characters."""
    text = "".join(c if c.isprintable() else " " for c in str(value)[: 4 * most])
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def shown(value: object, most: int = 200) -> str:
    """A value that is refused, as Python writes it, in one line."""
    try:
        return one_line(repr(value), most)
    except ValueError:  # it holds an integer longer than Python writes
        return f"a {type(value).__name__} too long to show"
