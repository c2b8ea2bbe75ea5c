"""Talk: free English in, canonical answers out.

The content lies in ``data`` and is described in ``data/FORMAT.md``. :mod:`grammar` reads it,
:mod:`noise` dresses phrasings as visitors type, :mod:`conversation` joins turns and says what is
held out, :mod:`scoring` judges. The families whose answers are made rather than looked up have
rooms of their own.
"""

from __future__ import annotations

from d2f.tasks.problem import Task
from d2f.tasks.talk import classics, stories, sums, turns, writing
from d2f.tasks.talk.conversation import maker
from d2f.tasks.talk.scoring import judge


def _of_data(family: str, title: str, description: str, goes_on: float) -> Task:
    name = f"talk-{family}"
    return Task(name, title, description, maker(name, family, goes_on), judge)


TALK: dict[str, Task] = {
    task.name: task
    for task in (
        _of_data("talk", "Small talk", "Greetings, feelings, thanks and the like.", 0.25),
        _of_data("itself", "About itself", "The models, the method and the page.", 0.15),
        _of_data("facts", "Facts", "Capitals, animals, planets, words, units and more.", 0.2),
        _of_data("advice", "Advice", "How-tos, gifts and small decisions.", 0.25),
        _of_data("fallback", "Out of scope", "Topics it does not know, declined by name.", 0.15),
        Task(
            writing.NAME,
            "Writing",
            "Jokes, riddles, haiku, rhymes, acrostics, lists and notes.",
            writing.make,
            judge,
        ),
        Task(
            stories.NAME,
            "Stories",
            "Short stories with the visitor's hero, thing and place.",
            stories.make,
            judge,
        ),
        Task(
            sums.NAME,
            "Sums in own words",
            "Word problems and calculations, worked in small steps.",
            sums.make,
            judge,
        ),
        Task(
            classics.NAME,
            "Python classics",
            "Well-known small functions, checked by hidden tests.",
            classics.make,
            judge,
        ),
        Task(
            turns.NAME,
            "Conversations",
            "Two or three turns: another one, why, shorter, and Spain, now five more, thanks.",
            turns.make,
            judge,
        ),
    )
}
