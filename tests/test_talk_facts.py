"""The facts against well-kept lists of others; known differences are named with a reason."""

from __future__ import annotations

import calendar
import unicodedata

import pytest

from d2f.tasks.talk import grammar
from d2f.tasks.talk.grammar import fill, first, slots_of, table

# Where countryinfo is out of date, or names the same place otherwise.
CAPITALS = {
    "Burundi": "Gitega",
    "Eswatini": "Mbabane",
    "Kazakhstan": "Astana",
    "San Marino": "San Marino",
    "United States": "Washington",
}
# Currencies that have changed since, or that are spelt otherwise.
CURRENCIES = {
    "Belarus": "ruble",
    "Bulgaria": "euro",
    "Croatia": "euro",
    "Israel": "shekel",
    "Mauritania": "ouguiya",
    "Qatar": "riyal",
    "Sao Tome and Principe": "dobra",
    "Sierra Leone": "leone",
    "Venezuela": "bolivar",
    "Zambia": "kwacha",
}
UNKNOWN = {"Kosovo", "Vatican City"}
# inflect takes another of two good plurals, or has none.
PLURALS = {
    "thief": "thieves",
    "cactus": "cacti",
    "fungus": "fungi",
    "hoof": "hooves",
    "grandchild": "grandchildren",
    "flamingo": "flamingos",
    "gecko": "geckos",
}


def plain(text: str) -> str:
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return ascii_only.lower().replace("'", "").strip()


def countries() -> list[tuple[str, grammar.Row]]:
    named = [(first(row["country"]).removeprefix("the "), row) for row in table("countries")]
    return [(name, row) for name, row in named if name not in UNKNOWN]


def test_capitals_and_continents() -> None:
    info = pytest.importorskip("countryinfo").CountryInfo
    assert len(countries()) > 190
    for name, row in countries():
        assert plain(row["capital"]) == plain(CAPITALS.get(name, info(name).capital())), name
        region = info(name).region()
        wanted = ("North America", "South America") if region == "Americas" else (region,)
        assert any(each in row["continent"] for each in wanted), name


def test_currencies() -> None:
    info = pytest.importorskip("countryinfo").CountryInfo
    known = pytest.importorskip("pycountry").currencies
    for name, row in countries():
        codes = [known.get(alpha_3=code) for code in info(name).currencies()]
        names = [plain(code.name) for code in codes if code]
        if name in CURRENCIES:
            assert row["currency"] == CURRENCIES[name]
        else:
            assert any(plain(row["currency"]) in each for each in names), name


def test_elements() -> None:
    elements = pytest.importorskip("periodictable").elements
    british = {"aluminium": "aluminum", "quicksilver": "mercury"}
    for row in table("elements"):
        element = elements.symbol(row["symbol"])
        name = first(row["element"])
        assert (element.name, element.number) == (british.get(name, name), int(row["number"]))


@pytest.mark.parametrize(("name", "one"), [("plurals", "one"), ("animals", "animal")])
def test_plurals(name: str, one: str) -> None:
    engine = pytest.importorskip("inflect").engine()
    for row in table(name):
        word = first(row[one])
        assert first(row["many"]) == PLURALS.get(word, engine.plural_noun(word))


def test_numbers_in_words() -> None:
    engine = pytest.importorskip("inflect").engine()
    for row in table("numbers"):
        assert engine.number_to_words(int(row["digits"]), comma="") == row["words"]


def test_days_and_months() -> None:
    days, months = list(calendar.day_name), list(calendar.month_name)[1:]
    for i, row in enumerate(table("days")):
        assert (row["day"], row["next"], row["before"]) == (days[i], days[(i + 1) % 7], days[i - 1])
    for i, row in enumerate(table("months")):
        assert row["month"] == months[i]
        assert (row["next"], row["before"]) == (months[(i + 1) % 12], months[i - 1])
        assert row["days"].startswith(str(calendar.monthrange(2023, i + 1)[1]))


def test_words_have_one_opposite() -> None:
    words = [row["word"] for row in table("opposites")]
    assert len(words) == len(set(words)) > 250


def test_mixing_colours_takes_no_order() -> None:
    mixes = {(row["one"], row["two"]): row["result"] for row in table("mixes")}
    for (one, two), result in mixes.items():
        assert mixes.get((two, one), result) == result


def test_there_are_three_thousand_facts() -> None:
    said = set()
    for intent in grammar.of_family("facts"):
        for row in intent.rows if "from" in intent.options else ({},):
            words = {name: first(row[name]) for name in slots_of(intent.answer)}
            said.add((intent.name, fill(intent.answer, words)))
    assert len(said) >= 3_000
