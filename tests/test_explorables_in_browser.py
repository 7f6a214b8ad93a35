"""Explorable figures in a real browser: their numbers are those of `hoptm`, the keyboard reaches everything, and without scripts the picture stays."""

import re
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, Page
from test_explorables import ARC, STEP, aside, gif, squares, walked

from hoptm import explorables, progressive
from hoptm.config import generator


def show(page: Page, folder: Path, *figures: explorables.Explorable) -> None:
    """A page that holds the figures and nothing else, opened from the disk."""
    place = folder / "page.html"
    body = "\n".join(figure._repr_html_() for figure in figures)
    place.write_text(f'<!doctype html><html lang="en"><meta charset="utf-8"><title>page</title><body>{body}', encoding="utf-8")
    page.goto(place.as_uri())


def shown_losses(page: Page) -> dict[str, float]:
    rows = page.evaluate("() => [...document.querySelectorAll('.explorable tr')].map(row => [row.cells[0].textContent, Number(row.dataset.value)])")
    return {str(name): float(value) for name, value in rows}


def shown_path(page: Page) -> torch.Tensor:
    points = page.evaluate(
        "() => [...document.querySelectorAll('.explorable circle')].slice(5).map(dot => [Number(dot.getAttribute('cx')), -Number(dot.getAttribute('cy'))])"
    )
    return torch.tensor(points, dtype=torch.float64)


def random_paths() -> dict[str, torch.Tensor]:
    chance = generator(0, "random paths")
    first = torch.cat([torch.zeros(1), torch.ones(4)])[:, None].double()
    return {f"random {number}": ARC + 0.25 * first * torch.randn(5, 2, generator=chance, dtype=torch.float64) for number in range(8)}


def agree(page: Page, expert: torch.Tensor) -> None:
    student, shown = shown_path(page), shown_losses(page)
    assert list(shown) == list(explorables.LOSSES)
    for name, loss in explorables.LOSSES.items():
        assert shown[name] == pytest.approx(float(loss(student, expert)), rel=1e-9, abs=1e-14), name


def test_the_losses_of_a_path_are_those_of_the_core(page: Page, tmp_path: Path) -> None:
    bend = {"bend": aside(0.2 * STEP * (4 - STEP)), "same": ARC, "back": ARC * torch.tensor([-1.0, 1.0]), "still": ARC[:1].expand(5, 2)}
    show(page, tmp_path, explorables.path(ARC, bend | random_paths(), "alt"))
    names = page.locator(".explorable button").all_text_contents()
    assert len(names) == 12
    for name in names:
        page.get_by_role("button", name=name, exact=True).click()
        for amount in ("1", "-1.5", "0.3"):
            page.locator(".explorable input").fill(amount)
            agree(page, ARC)
    page.locator(".explorable input").fill("0")
    assert max(abs(value) for value in shown_losses(page).values()) < 1e-15


def test_an_expert_that_stands_still_has_nothing_to_compare(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, explorables.path(torch.zeros(5, 2).double(), {"drift": torch.stack([STEP / 4, STEP / 8], dim=1)}, "alt"))
    agree(page, torch.zeros(5, 2).double())


def test_a_waypoint_moves_by_keyboard_and_by_mouse(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, explorables.path(ARC, {"same": ARC}, "alt"))
    assert page.locator(".explorable output").text_content() == "Blind to this: " + ", ".join(explorables.LOSSES) + "."
    reached = []
    for _ in range(6):  # one button, the slider, four waypoints
        page.keyboard.press("Tab")
        reached.append(page.evaluate("() => document.activeElement.getAttribute('aria-label') || document.activeElement.tagName"))
    assert [word[:10] for word in reached] == ["BUTTON", "INPUT"] + [f"waypoint {at}" for at in range(1, 5)]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    moved = ARC.clone()
    moved[1] += 0.05
    assert torch.allclose(shown_path(page), moved)
    agree(page, ARC)
    assert page.locator(".explorable output").text_content() == "Blind to this: end point, shape."
    box = page.locator(".explorable circle").nth(8).bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 20, box["y"] + 60, steps=3)
    page.mouse.up()
    assert shown_path(page)[3, 1] < ARC[3, 1] - 0.1 and torch.allclose(shown_path(page)[4], ARC[4])
    agree(page, ARC)


def test_masks_show_the_shares_of_the_core(page: Page, tmp_path: Path) -> None:
    errors, used, limits, alive = walked(iterations=5)
    show(page, tmp_path, explorables.masks(errors, used, limits, alive, "alt"))
    figure, slider = page.locator(".explorable"), page.locator(".explorable input")
    for name, of in used.items():
        page.get_by_role("button", name=name, exact=True).press("Enter")
        slider.focus()
        page.keyboard.press("Home")
        for number, mask in enumerate(of):
            told = {key: figure.get_attribute(f"data-{key}") for key in ("at", "mask", "share", "limit", "used")}
            assert told["at"] == str(number) and told["mask"] == name
            assert float(told["share"] or "nan") == progressive.utilisation(mask, alive)
            assert float(told["limit"] or "nan") == progressive.threshold(number, 1e-7, 2.0, 1)
            assert int(told["used"] or "-1") == int((mask & alive).sum())
            assert f"{100 * progressive.utilisation(mask, alive):.0f} %" in (page.locator(".explorable output").text_content() or "")
            page.keyboard.press("ArrowRight")
        heights = page.evaluate("() => [...document.querySelectorAll('.explorable rect')].map(bar => Number(bar.getAttribute('height')))")
        grey, coloured = heights[::2], heights[1::2]
        assert sum(coloured) / sum(grey) == pytest.approx(progressive.utilisation(of[-1], alive))


def colour_at(page: Page, x: int, y: int) -> list[int]:
    found = page.evaluate("([x, y]) => [...document.querySelector('canvas').getContext('2d').getImageData(x, y, 1, 1).data]", [x, y])
    return [int(value) for value in found[:3]]


def test_a_film_plays_stops_and_is_walked_through_by_keyboard(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, explorables.film(gif(squares(), 1_500), ["one", "two", "three", "four"], "a red square walks to the right"))
    figure, button, slider = page.locator(".explorable"), page.locator(".explorable button"), page.locator(".explorable input")
    page.wait_for_selector('.explorable[data-at="3"]')
    assert button.text_content() == "Play" and colour_at(page, 35, 10) == [200, 0, 30], "a film that moves by itself, or not on its last frame"
    slider.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert figure.get_attribute("data-at") == "1" and colour_at(page, 15, 10) == [200, 0, 30] and colour_at(page, 35, 10) == [255, 255, 255]
    assert slider.get_attribute("aria-valuetext") == "two" and "two" in (page.locator(".player").text_content() or "")
    button.focus()
    page.keyboard.press("Enter")
    assert button.text_content() == "Pause"
    page.wait_for_selector('.explorable[data-at="3"]')
    page.wait_for_function("() => document.querySelector('.explorable button').textContent === 'Play'")
    page.keyboard.press("Enter")  # once more from the beginning
    page.wait_for_selector('.explorable[data-at="1"]')
    page.keyboard.press("Enter")
    assert button.text_content() == "Play"
    stopped = figure.get_attribute("data-at")
    page.wait_for_timeout(2_000)
    assert stopped in ("1", "2") and figure.get_attribute("data-at") == stopped, "a film that was stopped goes on"


def test_two_figures_of_a_page_mind_their_own_business(page: Page, tmp_path: Path) -> None:
    errors, used, limits, alive = walked()
    show(page, tmp_path, explorables.path(ARC, {"same": ARC}, "a path"), explorables.masks(errors, used, limits, alive, "masks"))
    assert page.evaluate("() => [...document.querySelectorAll('.explorable')].map(part => part.querySelectorAll('svg').length)") == [1, 1]


def test_without_scripts_the_picture_stays(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    show(page, tmp_path, explorables.path(ARC, {"same": ARC}, "an expert and a student on one road"))
    picture = page.locator(".explorable img")
    assert picture.is_visible() and picture.get_attribute("alt") == "an expert and a student on one road"
    context.close()


def test_with_scripts_the_picture_makes_room(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, explorables.path(ARC, {"same": ARC}, "alt"))
    assert not page.locator(".explorable img").is_visible()
    assert re.match(r"waypoint 1 of the student, 0\.50 along and 0\.30 aside", page.locator("circle[role=button]").first.get_attribute("aria-label") or "")
