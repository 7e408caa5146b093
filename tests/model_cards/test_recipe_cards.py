"""The cards of the recipes' models: one each, current, and honest about licences and figures."""

from pathlib import Path

import pytest

import model_cards.recipes
from model_cards.recipes import FOLDER, card, main, recipes


def test_every_recipe_has_a_card_that_is_current() -> None:
    """If this fails: python -m model_cards.recipes."""
    for recipe in recipes():
        assert (FOLDER / f"{recipe}.md").read_text() == card(recipe), recipe
    assert {path.stem for path in FOLDER.glob("*.md")} == {*recipes(), "README"}
    page = (FOLDER / "README.md").read_text()
    assert all(f"({recipe}.md)" in page for recipe in recipes())


def test_a_card_says_what_was_measured() -> None:
    assert "| household (n = 1,008), 3 seeds |" in card("household")
    assert "| SayCan, from" in card("saycan") and "MetaTool" not in card("saycan")
    assert "Not measured" in card("qwen2-7b-paper") and "MRR@10" not in card("qwen2-7b-paper")


def test_a_card_says_the_licences() -> None:
    assert "**Non-commercial**" in card("esconv") and "--license cc-by-nc-4.0 data=cc-by-nc-4.0" in card("esconv")
    assert "`cc-by-4.0`" in card("saycan") and "Non-commercial" not in card("saycan")


def test_an_unknown_licence_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model_cards.recipes.ORIGINS, "models", {})
    with pytest.raises(ValueError, match=r"the licence of .* is not known; accepted: one that model_cards/origins"):
        card("saycan")


def test_the_command_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {recipe: card(recipe) for recipe in recipes()}
    monkeypatch.setattr(model_cards.recipes, "card", cards.get)
    monkeypatch.setattr(model_cards.recipes, "FOLDER", tmp_path)
    main()
    assert {path.stem: path.read_text() for path in tmp_path.glob("*.md")} == cards
