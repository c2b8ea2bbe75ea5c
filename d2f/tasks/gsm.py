"""Grade-school word problems of two to six steps, after GSM8K.

A story keeps one running value; every event is one sentence of the prompt and one sentence of the
worked solution, which restates it and calculates. So the solution is a function of the prompt.
All values stay within 1..60, and what is added or taken is small, as in a child's first book of
sums. Knows nothing of splits, tokenizers or models.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from d2f.tasks.problem import Problem, Task, Turn, ceiling, same_final_answer
from d2f.tasks.reading import read_number

WOMEN = (
    "Mia Anna Emma Lily Zoe Nora Ruby Ella Clara Lucy Maya Ivy Rosa Alice Julia Sara Nina Eva "
    "Grace Olivia"
).split()
MEN = (
    "Ben Tom Leo Max Sam Noah Jack Luke Adam Finn Oscar Paul David Hugo Eric Ryan Peter Felix "
    "Omar Ivan"
).split()
STEP_COUNTS = (2, 3, 4, 5, 6)
STEP_WEIGHTS = (30, 30, 22, 11, 7)
MOST = 60
CONNECTORS = ("", "", "", "Then ", "Later ", "After that, ")


class Noun(NamedTuple):
    one: str
    many: str

    def of(self, n: int) -> str:
        return self.one if n == 1 else self.many


def _nouns(words: str) -> tuple[Noun, ...]:
    return tuple(Noun(*word.split("/")) for word in words.split())


FRUIT = _nouns(
    "apple/apples orange/oranges lemon/lemons plum/plums cherry/cherries peach/peaches pear/pears "
    "mango/mangos"
)
TREATS = _nouns("cookie/cookies muffin/muffins cupcake/cupcakes pie/pies waffle/waffles")
THINGS = _nouns(
    "marble/marbles sticker/stickers shell/shells card/cards stamp/stamps coin/coins bead/beads "
    "button/buttons stone/stones badge/badges book/books pencil/pencils"
)
PACKS = _nouns("bag/bags box/boxes basket/baskets pack/packs")
GOODS = _nouns("pen/pens toy/toys ticket/tickets hat/hats cake/cakes plant/plants")
DOLLARS = Noun("dollar", "dollars")


@dataclass(frozen=True)
class Scene:
    """What can happen in one kind of story; every entry is a sentence to be filled in."""

    has: str
    had: str
    asks: tuple[str, ...]
    gains: tuple[str, ...]
    losses: tuple[str, ...]
    halves: tuple[str, ...]
    growths: tuple[tuple[int, str], ...]
    group_gains: tuple[str, ...]
    group_losses: tuple[str, ...]


def _owning(**events: tuple[str, ...]) -> Scene:
    """A scene in which a person owns countable things."""
    return Scene(
        has="{she} has",
        had="{name} had",
        asks=(
            "How many {unit} does {she} have now?",
            "How many {unit} does {name} have in the end?",
        ),
        gains=events["gains"],
        losses=events["losses"],
        halves=events["halves"],
        growths=(
            (2, "{friend} gives {her} as many {unit} as {she} has"),
            (2, "{she} doubles {his} supply of {unit}"),
            (3, "{she} triples {his} supply of {unit}"),
        ),
        group_gains=events.get("group_gains", ()),
        group_losses=events.get("group_losses", ()),
    )


OWNING_FRUIT = _owning(
    gains=("{she} buys {more}", "{she} picks {more}", "{she} gets {more} from {friend}"),
    losses=("{she} gives {some} to {friend}", "{she} eats {some}", "{she} sells {some}"),
    halves=("{she} gives half of them to {friend}", "{she} eats half of them"),
    group_gains=("{she} buys {k} bags of {n} {unit}", "{she} picks {n} {unit} a day for {k} days"),
    group_losses=("{she} gives {n} to each of {k} friends", "{she} eats {n} a day for {k} days"),
)
OWNING_TREATS = _owning(
    gains=("{she} bakes {more}", "{she} buys {more}", "{she} gets {more} from {friend}"),
    losses=("{she} gives {some} to {friend}", "{she} eats {some}", "{she} sells {some}"),
    halves=("{she} gives half of them to {friend}", "{she} sells half of them"),
    group_gains=("{she} bakes {k} trays of {n} {unit}", "{she} buys {k} boxes of {n} {unit}"),
    group_losses=("{she} gives {n} to each of {k} friends", "{she} eats {n} a day for {k} days"),
)
OWNING_THINGS = _owning(
    gains=(
        "{she} buys {more}",
        "{she} finds {more}",
        "{she} wins {more}",
        "{she} gets {more} from {friend}",
    ),
    losses=(
        "{she} gives {some} to {friend}",
        "{she} loses {some}",
        "{she} sells {some}",
        "{she} trades {some} for a toy",
    ),
    halves=("{she} gives half of them to {friend}", "{she} loses half of them"),
    group_gains=("{she} buys {k} bags of {n} {unit}", "{she} finds {n} {unit} a day for {k} days"),
    group_losses=("{she} gives {n} to each of {k} friends",),
)
OWNING_PACKS = _owning(
    gains=("{she} fills {more}", "{she} gets {more} from {friend}"),
    losses=("{she} gives {some} to {friend}", "{she} loses {some}"),
    halves=("{she} gives half of the {unit} to {friend}",),
)
OWNING_MONEY = Scene(
    has="{she} has",
    had="{name} had",
    asks=("How many dollars does {she} have now?", "How many dollars does {name} have left?"),
    gains=(
        "{she} earns {some}",
        "{she} finds {some}",
        "{she} gets {some} from {friend}",
        "{friend} pays {her} {some}",
    ),
    losses=(
        "{she} spends {some} on lunch",
        "{she} pays {some} for a {good}",
        "{she} gives {some} to {friend}",
        "{she} loses {some}",
    ),
    halves=("{she} spends half of {his} money", "{she} gives half of {his} money to {friend}"),
    growths=((2, "{she} doubles {his} money"), (3, "{she} triples {his} money")),
    group_gains=(
        "{she} earns {n} dollars a day for {k} days",
        "{she} sells {k} {goods} for {n} dollars each",
    ),
    group_losses=(
        "{she} buys {k} {goods} for {n} dollars each",
        "{she} spends {n} dollars a day for {k} days",
    ),
)


class Place(NamedTuple):
    where: str
    unit: Noun
    comes: str
    goes: str
    group: str


PLACES = (
    Place("in the tree", Noun("bird", "birds"), "land", "fly away", "flocks"),
    Place("on the bus", Noun("person", "people"), "get on", "get off", "groups"),
    Place("on the train", Noun("person", "people"), "get on", "get off", "groups"),
    Place("on the pond", Noun("duck", "ducks"), "swim in", "swim away", "families"),
    Place("in the car park", Noun("car", "cars"), "drive in", "drive away", "rows"),
    Place("in the library", Noun("book", "books"), "come back", "go out", "boxes"),
    Place("on the field", Noun("sheep", "sheep"), "come in", "run away", "groups"),
    Place("in the park", Noun("child", "children"), "arrive", "go home", "groups"),
    Place("in the shop", Noun("lamp", "lamps"), "arrive", "are sold", "boxes"),
)


def _place_scene(place: Place) -> Scene:
    unit, comes, goes = place.unit.many, place.comes, place.goes
    return Scene(
        has="there are",
        had="There were",
        asks=(f"How many {unit} are {place.where} now?",),
        gains=("{more} " + comes,),
        losses=("{some} " + goes,),
        halves=(f"half of the {unit} {goes}",),
        growths=((2, f"the number of {unit} doubles"), (3, f"the number of {unit} triples")),
        group_gains=("{k} " + place.group + " of {n} " + f"{unit} {comes}",),
        group_losses=("{k} " + place.group + " of {n} " + f"{unit} {goes}",),
    )


PLACE_SCENES = tuple((place, _place_scene(place)) for place in PLACES)


@dataclass
class Story:
    """A word problem in the making: its sentences so far, its running value and its unit."""

    rng: random.Random
    difficulty: float
    scene: Scene
    unit: Noun
    words: dict[str, str]
    value: int = 0
    explicit: bool = False
    telling: list[str] = field(default_factory=list)
    solution: list[str] = field(default_factory=list)
    sums: list[str] = field(default_factory=list)
    question: str = ""

    @property
    def least(self) -> int:
        """Places speak in the plural: their verbs fit no single bird."""
        return 1 if self.words else 2

    def fill(self, template: str, **more: object) -> str:
        return template.format(unit=self.unit.many, **self.words, **more)

    def choose(self, templates: tuple[str, ...], **more: object) -> str:
        return self.fill(self.rng.choice(templates), **more)

    def calculate(self, left: int, sign: str, right: int) -> str:
        """Sets the value to the result and returns the sum as written."""
        results = {"+": left + right, "-": left - right, "*": left * right}
        self.value = results[sign] if sign in results else left // right
        self.sums.append(f"{left}{sign}{right}")
        return f"{left} {sign} {right} = {self.value}"

    def counted(self, left: int, sign: str, right: int, unit: Noun | None = None) -> str:
        text = self.calculate(left, sign, right)
        return f"{text} {(unit or self.unit).of(self.value)}"

    def tell(self, event: str, outcome: str, aside: str = "") -> None:
        """Something happens: a sentence of the prompt, and the same with its outcome."""
        connector = self.rng.choice(CONNECTORS) if len(self.telling) > 1 else ""
        self.telling.append((connector + event if connector else capital(event)) + ".")
        self.solution.append(f"{capital(event)}{aside}, so {outcome}.")

    def note(self, fact: str, outcome: str) -> None:
        """Something holds, so it takes no "then"."""
        self.telling.append(capital(fact) + ".")
        self.solution.append(f"{capital(fact)}, so {outcome}.")

    def now(self, left: int, sign: str, right: int) -> str:
        return f"{self.fill(self.scene.has)} {self.counted(left, sign, right)}"

    def number(self, low: int, most: int, high: int = 15) -> int:
        """A random operand up to `most`, smaller when easy; 0 if there is no room for one."""
        top = min(most, ceiling(max(low, 9), high, self.difficulty))
        return self.rng.randint(low, top) if top >= low else 0

    def divisor(self) -> int:
        """A number from 2 to 9 that divides the value into at least two; 0 if there is none."""
        fits = [k for k in range(2, 10) if self.value % k == 0 and self.value // k >= 2]
        return self.rng.choice(fits) if fits else 0

    def group(self, most: int) -> tuple[int, int]:
        """Two factors of at least 2 with a product up to `most`; zeros if there are none."""
        if most < 4:
            return 0, 0
        k = self.rng.randint(2, min(9, most // 2))
        return k, self.rng.randint(2, min(9, most // k))


def times(n: int) -> str:
    return "twice" if n == 2 else f"{n} times"


def capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _gain(story: Story) -> None:
    n = story.number(story.least, MOST - story.value)
    if not n:
        return
    noun = story.unit.of(n)
    more = f"{n} more {noun}" if story.explicit else f"{n} more"
    event = story.choose(story.scene.gains, more=more, some=f"{n} {noun}")
    story.tell(event, story.now(story.value, "+", n))


def _lose(story: Story) -> None:
    n = story.number(story.least, story.value - 2)
    if not n:
        return
    some = f"{n} {story.unit.of(n)}" if story.explicit else str(n)
    story.tell(story.choose(story.scene.losses, some=some), story.now(story.value, "-", n))


def _halve(story: Story) -> None:
    if story.value % 2 == 0 and story.value >= 4:
        story.tell(story.choose(story.scene.halves), story.now(story.value, "/", 2))


def _grow(story: Story) -> None:
    factor, template = story.rng.choice(story.scene.growths)
    if story.value * factor <= MOST:
        story.tell(story.fill(template), story.now(factor, "*", story.value))


def _group_step(story: Story, templates: tuple[str, ...], sign: str, room: int) -> None:
    k, n = story.group(min(room, 20))
    if not k or not templates:
        return
    before = story.value
    event = story.choose(templates, k=k, n=n)
    product = story.counted(k, "*", n)
    story.tell(event, story.now(before, sign, k * n), f", which is {product}")


def _gain_groups(story: Story) -> None:
    _group_step(story, story.scene.group_gains, "+", MOST - story.value)


def _lose_groups(story: Story) -> None:
    _group_step(story, story.scene.group_losses, "-", story.value - 2)


def _pack(story: Story) -> None:
    """Turns things into bags of things; the bags are what is counted from here on."""
    k = story.divisor()
    if not k or story.scene not in PACKABLE:
        return
    pack = story.rng.choice(PACKS)
    event = story.fill("{she} packs them into {pack} of {k}", pack=pack.many, k=k)
    story.unit, story.scene, story.explicit = pack, OWNING_PACKS, True
    story.tell(event, story.now(story.value, "/", k))


def _sell_all(story: Story) -> None:
    """Turns things into money."""
    price = story.number(2, MOST // story.value, high=9)
    if not price or story.scene is OWNING_MONEY or "she" not in story.words:
        return
    event = story.fill("{she} sells all of the {unit} for {price} dollars each", price=price)
    story.unit, story.scene, story.explicit = DOLLARS, OWNING_MONEY, True
    story.tell(event, story.now(story.value, "*", price))


STEPS: tuple[Callable[[Story], None], ...] = (_gain, _lose, _halve, _grow, _pack, _sell_all)
STEP_ODDS = (7, 7, 2, 3, 2, 1)
PACKABLE = (OWNING_FRUIT, OWNING_TREATS, OWNING_THINGS)


def _share(story: Story) -> None:
    k = story.divisor()
    if not k:
        return
    split = story.counted(story.value, "/", k)
    event = story.fill("{she} shares the {unit} equally among {k} friends", k=k)
    story.tell(event, f"each friend gets {split}")
    story.question = story.fill("How many {unit} does each friend get?")


def _form_groups(story: Story) -> None:
    k = story.divisor()
    if not k:
        return
    split = story.calculate(story.value, "/", k)
    story.note(story.fill("the {unit} are in groups of {k} now", k=k), f"there are {split} groups")
    story.question = "How many groups are there?"


def _compare(story: Story) -> None:
    gap = story.number(2, MOST)
    more = story.rng.random() < 0.5
    n = story.value - gap if more else story.value + gap
    if not 2 <= n <= MOST:
        return
    left, right = (story.value, n) if more else (n, story.value)
    difference = story.calculate(left, "-", right)
    noun, word = story.unit.of(story.value), "more" if more else "fewer"
    story.note(
        story.fill("{rival} has {n} {unit}", n=n),
        story.fill(f"{{name}} has {difference} {word} {noun} than {{rival}}"),
    )
    story.question = story.fill(f"How many {word} {{unit}} does {{name}} have than {{rival}}?")


def _together(story: Story) -> None:
    n = story.number(2, MOST - story.value)
    if not n:
        return
    total = story.counted(story.value, "+", n)
    story.note(story.fill("{rival} has {n} {unit}", n=n), f"together they have {total}")
    story.question = f"How many {story.unit.many} do they have together?"


def _times_as_many(story: Story) -> None:
    k = story.number(2, MOST // story.value, high=9)
    if not k:
        return
    result = story.counted(k, "*", story.value)
    event = story.fill("{rival} has {k} as many {unit} as {name}", k=times(k))
    story.note(event, story.fill("{rival} has ") + result)
    story.question = story.fill("How many {unit} does {rival} have?")


def _wish(story: Story) -> None:
    goal = story.value + story.number(2, MOST - story.value)
    if goal == story.value:
        return
    missing = story.calculate(goal, "-", story.value)
    noun = story.unit.of(story.value)
    event = story.fill("{she} wants to have {goal} {unit}", goal=goal)
    story.note(event, story.fill("{she} needs ") + f"{missing} more {noun}")
    story.question = story.fill("How many more {unit} does {she} need?")


PERSON_ENDINGS = (_share, _compare, _together, _times_as_many, _wish)


def _open_person(story: Story) -> None:
    """How a person comes by the first things."""
    rng, kind = story.rng, story.rng.random()
    if kind < 0.5:
        story.value = story.number(2, MOST, high=40)
        story.telling.append(story.fill("{name} has {n} {unit}.", n=story.value))
        story.solution.append(story.fill("{name} starts with {n} {unit}.", n=story.value))
    elif kind < 0.65 or story.unit is DOLLARS:
        k, n = story.group(ceiling(20, MOST, story.difficulty))
        if story.unit is DOLLARS:
            event = story.fill("{name} earns {n} dollars a day for {k} days", n=n, k=k)
        else:
            pack = rng.choice(PACKS).many
            event = story.fill("{name} has {k} {pack} of {n} {unit}", n=n, k=k, pack=pack)
        story.tell(event, story.now(k, "*", n))
    elif kind < 0.8:
        n = story.number(2, MOST, high=40)
        m = story.number(2, MOST - n)
        colours = rng.choice(("red and {m} green", "small and {m} big"))
        event = story.fill("{name} has {n} " + colours + " {unit}", n=n, m=m)
        story.tell(event, story.now(n, "+", m))
    else:
        n = story.number(2, MOST, high=40)
        m = story.number(2, MOST - n)
        story.telling.append(story.fill("{friend} has {n} {unit}.", n=n))
        story.solution.append(story.telling[-1])
        event = story.fill("{name} has {m} more {unit} than {friend}", m=m)
        story.tell(event, story.fill("{name} has ") + story.counted(n, "+", m))


def _open_place(story: Story, place: Place) -> None:
    story.value = story.number(3, MOST, high=40)
    there = f"There are {story.value} {place.unit.many} {place.where}"
    story.telling.append(there + ".")
    story.solution.append(there + " at first.")


def _people(rng: random.Random) -> dict[str, str]:
    """Three different names, the pronouns of the first, and something to buy."""
    women = rng.random() < 0.5
    name = rng.choice(WOMEN if women else MEN)
    friend, rival, spare = rng.sample(WOMEN + MEN, 3)
    if name in (friend, rival):
        friend, rival = spare, rival if friend == name else friend
    good = rng.choice(GOODS)
    she, her, his = ("she", "her", "her") if women else ("he", "him", "his")
    return {
        "name": name,
        "friend": friend,
        "rival": rival,
        "she": she,
        "her": her,
        "his": his,
        "good": good.one,
        "goods": good.many,
    }


def _step(story: Story, room: int) -> None:
    """Tries one more event of at most `room` calculations; it may find no fitting numbers."""
    roll = story.rng.random() if room > 1 else 1.0
    if roll < 0.12:
        _gain_groups(story)
    elif roll < 0.2:
        _lose_groups(story)
    else:
        story.rng.choices(STEPS, STEP_ODDS)[0](story)


def _person_story(rng: random.Random, difficulty: float, target: int) -> Story:
    scene, nouns = rng.choice(
        (
            (OWNING_FRUIT, FRUIT),
            (OWNING_TREATS, TREATS),
            (OWNING_THINGS, THINGS),
            (OWNING_THINGS, THINGS),
            (OWNING_MONEY, (DOLLARS,)),
        )
    )
    unit = rng.choice(nouns)
    story = Story(rng, difficulty, scene, unit, _people(rng), explicit=unit is DOLLARS)
    _open_person(story)
    ends = rng.random() < 0.45
    while (room := target - ends - len(story.sums)) > 0:
        _step(story, room)
    while len(story.sums) < target:
        rng.choice(PERSON_ENDINGS)(story)
    return story


def _place_story(rng: random.Random, difficulty: float, target: int) -> Story:
    place, scene = rng.choice(PLACE_SCENES)
    story = Story(rng, difficulty, scene, place.unit, {}, explicit=True)
    _open_place(story, place)
    ends = rng.random() < 0.25
    while (room := target - ends - len(story.sums)) > 0:
        _step(story, room)
    if ends:
        _form_groups(story)
    while len(story.sums) < target:
        _step(story, 1)
    return story


class Relation(NamedTuple):
    """How a quantity is told of several people: stickers they have, or years they are old."""

    verb: str
    unit: str
    more: str
    fewer: str
    times: str
    ask: str


def _having(unit: str) -> Relation:
    return Relation(
        verb="has",
        unit=unit,
        more=f"more {unit} than",
        fewer=f"fewer {unit} than",
        times=f"as many {unit} as",
        ask=f"How many {unit} does {{}} have?",
    )


AGES = Relation(
    verb="is",
    unit="years old",
    more="years older than",
    fewer="years younger than",
    times="as old as",
    ask="How old is {}?",
)


def _relate(story: Story, relation: Relation, other: str, name: str) -> None:
    """One more person, compared to the one before."""
    rng, value = story.rng, story.value
    options = [(relation.more, "+", story.number(2, MOST - value))]
    options.append((relation.fewer, "-", story.number(2, value - 2)))
    options.append((relation.times, "*", story.number(2, MOST // value, high=9)))
    options.append((relation.times, "/", 2 if value % 2 == 0 and value >= 4 else 0))
    how, sign, n = rng.choice([option for option in options if option[2]])
    amount = f"half {how}" if sign == "/" else f"{times(n) if sign == '*' else n} {how}"
    left, right = (n, value) if sign == "*" else (value, n)
    event = f"{name} {relation.verb} {amount} {other}"
    result = story.calculate(left, sign, right)
    story.telling.append(event + ".")
    story.solution.append(f"{event}, so {name} {relation.verb} {result} {relation.unit}.")


def _relation_story(rng: random.Random, difficulty: float, target: int) -> Story:
    relation = AGES if rng.random() < 0.35 else _having(rng.choice(FRUIT + THINGS).many)
    count = min(target, rng.choice((2, 3, 4, 4))) + 1
    names = rng.sample(WOMEN + MEN, count)
    story = Story(rng, difficulty, OWNING_THINGS, THINGS[0], {})
    values = [story.number(2, MOST, high=30)]
    story.value = values[0]
    story.telling.append(f"{names[0]} {relation.verb} {values[0]} {relation.unit}.")
    story.solution.append(story.telling[0])
    for other, name in zip(names, names[1:], strict=False):
        _relate(story, relation, other, name)
        values.append(story.value)
    story.question = relation.ask.format(names[-1])
    if len(story.sums) < target or rng.random() < 0.4:
        _ask_about_two(story, relation, (names[0], names[-1]), (values[0], values[-1]))
    return story


def _ask_about_two(
    story: Story, relation: Relation, names: tuple[str, str], values: tuple[int, int]
) -> None:
    """Ends on the sum of, or the difference between, the first and the last person."""
    (first, last), (a, b) = names, values
    ages = relation is AGES
    if a + b <= MOST and (a == b or story.rng.random() < 0.5):
        what = relation.unit if not ages else "years"
        verb = "are" if ages else "have"
        total = story.calculate(a, "+", b)
        ask = f"How old are {first} and {last} together?"
        if not ages:
            ask = f"How many {what} do {first} and {last} have together?"
        story.question = ask
        story.solution.append(f"Together they {verb} {total} {relation.unit}.")
    elif a != b:
        high, low = (first, last) if a > b else (last, first)
        result = story.calculate(max(a, b), "-", min(a, b))
        more = relation.more
        story.question = f"How many {more.removesuffix(' than')} "
        story.question += f"is {high} than {low}?" if ages else f"does {high} have than {low}?"
        story.solution.append(f"{high} {relation.verb} {result} {more} {low}.")


class Work(NamedTuple):
    does: str
    do: str
    unit: str


WORKS = (
    Work("reads", "read", "pages"),
    Work("runs", "run", "laps"),
    Work("writes", "write", "letters"),
    Work("plants", "plant", "trees"),
    Work("paints", "paint", "pictures"),
    Work("solves", "solve", "puzzles"),
    Work("builds", "build", "models"),
    Work("repairs", "repair", "bikes"),
)


def _work_story(rng: random.Random, difficulty: float, target: int) -> Story:
    """Work at a steady rate: so much a day, for some days, out of a total, and how long yet."""
    does, do, unit = rng.choice(WORKS)
    words = _people(rng)
    story = Story(rng, difficulty, OWNING_THINGS, Noun(unit, unit), words)
    if target > 2:
        a, b = rng.randint(2, 5), rng.randint(2, 4)
        text = f"{{name}} {does} {a} {unit} every morning and {b} every evening"
        event = story.fill(text)
        story.tell(
            event, story.fill("{she} ") + f"{does} {story.calculate(a, '+', b)} {unit} a day"
        )
    else:
        story.value = rng.randint(2, 9)
        event = story.fill("{name} ") + f"{does} {story.value} {unit} a day"
        story.telling.append(event + ".")
        story.solution.append(event + ".")
    rate = story.value
    days = rng.randint(2, min(9, 45 // rate))
    story.telling.append(story.fill("{she} keeps going for ").capitalize() + f"{days} days.")
    done = story.calculate(days, "*", rate)
    story.solution.append(story.fill(f"In {days} days {{she}} {does} {done} {unit}."))
    rest = rng.randint(2, 9)
    further = rng.randint(2, 9) * rest if target > 3 else story.number(2, MOST - story.value)
    goal = story.value + further
    if target < 2 or goal > MOST:
        story.question = story.fill(f"How many {unit} does {{she}} {do}?")
        return story
    left = story.calculate(goal, "-", story.value)
    story.telling.append(story.fill("{she} wants to ").capitalize() + f"{do} {goal} {unit} in all.")
    story.solution.append(
        story.fill(f"{{she}} wants to {do} {goal}, so {left} {unit} are left.").capitalize()
    )
    story.question = f"How many {unit} are left?"
    if target > 3:
        pace = f"{does} {rest} {unit} a day from now on"
        story.telling.append(story.fill("{she} ").capitalize() + pace + ".")
        more = story.calculate(further, "/", rest)
        text = f"{{she}} {pace}, so {{she}} needs {more} more days."
        story.solution.append(story.fill(text).capitalize())
        story.question = story.fill("How many more days does {she} need?")
    return story


STORIES = (_person_story, _place_story, _relation_story, _work_story)
STORY_ODDS = (60, 16, 14, 10)
FOLLOW_UPS = (_gain, _lose, _halve, _grow, _gain_groups, _lose_groups)


def _follow_up(story: Story) -> tuple[Turn, str] | None:
    """One more event after the question was answered; None where it does not fit."""
    had = f"{story.fill(story.scene.had)} {story.value} {story.unit.of(story.value)}."
    story.telling, story.solution = [], [had]
    story.rng.choice(FOLLOW_UPS)(story)
    if not story.telling:
        return None
    event = story.telling[0]
    if event.startswith(("She", "He", "Half", "The")):
        event = event[0].lower() + event[1:]
    prompt = f"Now {event} {story.fill(story.scene.asks[0])}"
    return Turn(prompt, _answer(story)), str(story.value)


def _answer(story: Story) -> str:
    return "\n".join([*story.solution, f"#### {story.value}"])


def make(rng: random.Random, difficulty: float) -> Problem:
    """A word problem of two to six steps; about a third of them with a follow-up question."""
    target = min(rng.choices(STEP_COUNTS, STEP_WEIGHTS)[0], ceiling(2, 6, difficulty))
    story = rng.choices(STORIES, STORY_ODDS)[0](rng, difficulty, target)
    goes_on = not story.question
    question = story.question or story.choose(story.scene.asks)
    turns = [Turn(" ".join([*story.telling, question]), _answer(story))]
    expected = [str(story.value)]
    key = " ".join(story.sums)
    if goes_on and rng.random() < 0.85 and (follow := _follow_up(story)):
        turns.append(follow[0])
        expected.append(follow[1])
    return Problem("gsm-mini", key, tuple(turns), tuple(expected))


TASK = Task(
    name="gsm-mini",
    title="Word problems",
    description="Grade-school stories of two to six steps, solved one sentence at a time.",
    make=make,
    judge=same_final_answer,
    read=read_number,
)
