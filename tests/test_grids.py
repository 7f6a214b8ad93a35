"""A grid is read, checked cell by cell and priced, the paper's tables among them, without their data."""

import re
from pathlib import Path

import pytest

from hoptm.catalogue import published
from hoptm.config import PROFILES
from hoptm.cost import Shape, in_words
from hoptm.errors import ConfigError, FileError
from hoptm.grids import Cell, price, priced, read_grid

SHIPPED = Path(__file__).resolve().parent.parent / "book" / "reproduce"
GOOD = """title = "t"
notebook = "n.ipynb"
[cells]
dataset = "phantom:450"
profile = "smoke"
seed = 0
[axes]
method = ["published", "random"]
ipc = [1, 2]
[shape]
channels = 3
classes = 9
size = 28
train = 450
"""


def grid(folder: Path, text: str = GOOD) -> Path:
    (folder / "n.ipynb").write_text("{}")
    (folder / "g.toml").write_text(text)
    return folder / "g.toml"


def test_settings_of_a_grid_are_those_of_its_cells(tmp_path):
    cell = read_grid(grid(tmp_path, GOOD.replace("seed = 0", 'seed = 0\nsettings = "match.inner_loss=prior match.student_momentum=0.5"'))).cells[0]
    assert (cell.config().match.inner_loss, cell.config().match.student_momentum) == ("prior", 0.5)
    with pytest.raises(ConfigError, match=r"match\.colour"):
        read_grid(grid(tmp_path, GOOD.replace("seed = 0", 'seed = 0\nsettings = "match.colour=1"')))


def test_every_combination_is_a_cell_with_the_name_of_its_record(tmp_path):
    found = read_grid(grid(tmp_path))
    assert [cell.name for cell in found.cells] == [f"phantom:450-smoke-{method}-ipc{ipc}-seed0" for method in ("published", "random") for ipc in (1, 2)]
    assert found.cells[0].config().match.threshold and found.cells[2].config().method == "endpoint"
    assert Cell({**found.cells[0].parameters, "dataset": "somewhere/x rays"}).name.startswith("x_rays-smoke")


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        ("[axes]", "[axes", FileError, "TOML"),
        ('notebook = "n.ipynb"', 'notebook = "m.ipynb"', FileError, "m.ipynb"),
        ('title = "t"\n', "", ConfigError, "title should be there"),
        ('title = "t"', 'title = "t"\ncolour = 1', ConfigError, "colour should not be there"),
        ("seed = 0\n", "", ConfigError, "seed stands neither"),
        ("ipc = [1, 2]", "ipc = [1, 2]\nseed = [1]", ConfigError, "seed stands in"),
        ("ipc = [1, 2]", "ipc = []", ConfigError, "not empty"),
        ("ipc = [1, 2]", "ipc = [1, 1]", ConfigError, "occurs twice"),
        ("ipc = [1, 2]", "ipc = [1, -2]", ConfigError, "ipc-2"),
        ('"published"', '"publshed"', ConfigError, "publshed"),
        ('profile = "smoke"', 'profile = "smok"', ConfigError, PROFILES[0]),
        ("train = 450", "trian = 450", ConfigError, "channels, classes, size, train"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, old, new, error, words):
    assert GOOD.count(old) == 1
    with pytest.raises(error, match=words) as found:
        read_grid(grid(tmp_path, GOOD.replace(old, new)))
    assert "g.toml" in str(found.value)


@pytest.mark.parametrize(("name", "budgets", "edge"), [("table1", [1, 5, 10, 100, 1000], 28), ("table2", [1, 5, 10, 50], 112)])
def test_the_papers_tables_are_whole_and_have_a_price(name, budgets, edge):
    found = read_grid(SHIPPED / f"{name}.toml")
    assert sorted({cell.parameters["ipc"] for cell in found.cells}) == budgets and found.shape.size == edge
    assert {cell.parameters["profile"] for cell in found.cells} == {"paper"} and {cell.parameters["table"] for cell in found.cells} == {name}
    methods = {cell.parameters["method"] for cell in found.cells}
    assert {"published", "random"} <= methods and len(found.cells) == len(methods) * len(budgets)
    own = [cell for cell in found.cells if cell.parameters["method"] in ("published", "random") and cell.parameters["ipc"] in (1, 10)]
    said = priced(own, found.shape)
    assert [line.split()[0] for line in said.splitlines()[1:5]] == [cell.name for cell in own]
    days = [price(cell, found.shape).cost.seconds / 86_400 for cell in own if cell.parameters["method"] == "published"]
    assert all(days_of > 0.05 for days_of in days), "the published setting is no matter of minutes on a core"


def test_table_1_has_the_shape_that_medmnist_publishes():
    entry, shape = published()["pathmnist"], read_grid(SHIPPED / "table1.toml").shape
    assert (shape.channels, shape.classes, shape.train) == (entry["n_channels"], len(entry["label"]), entry["n_samples"]["train"])


def test_shared_experts_are_counted_once(tmp_path):
    found = read_grid(grid(tmp_path, GOOD.replace('["published", "random"]', '["published", "endpoint"]')))
    prices = [price(cell, found.shape) for cell in found.cells]
    assert len({one.experts for one in prices}) == 1 and all(one.cost.expert_seconds > 0 for one in prices)
    whole = sum(one.own_seconds for one in prices) + prices[0].cost.expert_seconds
    assert f"about {in_words(whole)} on one core" in priced(found.cells, found.shape)


def test_an_arm_of_real_images_costs_its_judgement(tmp_path):
    found = read_grid(grid(tmp_path))
    one = price(found.cells[2], found.shape)
    assert one.cost.seconds == 0 and one.judge_seconds > 0 and one.experts == ""
    assert re.search(r"random-ipc1-seed0 +- +- +- ", priced(found.cells, found.shape))


def test_a_large_batch_is_timed_in_part():
    shape = Shape(1, 2, 112, 500)
    config = Cell({"dataset": "phantom", "method": "endpoint", "ipc": 50, "seed": 0, "profile": "smoke"}).config()
    from hoptm.cost import _few, estimate

    assert _few(256, shape) == 16 and _few(10, shape) == 10
    assert estimate(config, shape).expert_seconds > estimate(config, Shape(1, 2, 28, 500)).expert_seconds
