"""The page of an evaluation in a real Chromium: every filter, the keyboard, hostile text."""

import pytest

from lfpc_trl.evaluate.outputs import write_outputs
from tests.evaluate.fake import rollouts, write_evaluation

pytestmark = pytest.mark.browser

EVIL = (
    "</script><script>document.title='taken over'</script><img src=x onerror=\"document.title='taken over'\">"
)
OUTCOMES = {
    "wrong": lambda each: each["accuracy"] < 0.5,
    "no_crop": lambda each: each["crops"] == 0,
    "low_overlap": lambda each: each["overlap"] is not None and each["overlap"] < 0.9,
}


@pytest.fixture(scope="module")
def made():
    return rollouts(questions=8, orders=1, text=EVIL)


@pytest.fixture(scope="module")
def address(made, tmp_path_factory):
    folder = write_evaluation(tmp_path_factory.mktemp("evaluations") / "mine", made)
    write_outputs(folder)
    return (folder / "report.html").as_uri()


@pytest.fixture
def page(chromium, address):
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    errors, requests = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    yield page
    assert errors == []
    assert [url for url in requests if not url.startswith("data:")] == [address]
    assert page.title() == "Evaluation of mine"
    context.close()


def listed(page):
    return page.locator("#list button").count()


def test_all_are_listed_and_the_first_is_open(page, made):
    assert listed(page) == len(made)
    assert page.locator("#count").inner_text() == f"{len(made)} of {len(made)}"
    assert page.locator("#list [aria-current]").count() == 1
    assert page.locator("#rollout h3").inner_text() == made[0]["question"]


@pytest.mark.parametrize("name", ["benchmark", "budget", "condition"])
def test_a_choice_keeps_those_and_no_others(page, made, name):
    values = {str(each[name]) for each in made}
    assert len(values) > 1
    for value in values:
        page.select_option(f"#filter-{name}", value)
        assert listed(page) == sum(str(each[name]) == value for each in made) > 0


@pytest.mark.parametrize("name", OUTCOMES)
def test_an_outcome_keeps_those_and_no_others(page, made, name):
    page.check(f"#filter-{name}")
    assert listed(page) == sum(map(OUTCOMES[name], made)) > 0
    page.uncheck(f"#filter-{name}")
    assert listed(page) == len(made)


def test_filters_join(page, made):
    page.select_option("#filter-benchmark", "vstar")
    page.select_option("#filter-condition", "noise")
    page.check("#filter-wrong")
    expected = [
        each
        for each in made
        if each["benchmark"] == "vstar" and each["condition"] == "noise" and each["accuracy"] == 0
    ]
    assert listed(page) == len(expected) > 0
    page.check("#filter-no_crop")
    page.check("#filter-low_overlap")
    assert listed(page) == 0
    assert page.locator("#rollout").inner_text() == "No rollout matches the filters."


def test_the_keyboard_suffices(page):
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")
    at = "[...document.querySelectorAll('#list button')].findIndex(each => each === document.activeElement)"
    assert page.evaluate(at) == 2
    current = "[...document.querySelectorAll('#list button')].findIndex(each => each.ariaCurrent)"
    assert page.evaluate(current) == 2
    page.focus("#filter-wrong")
    page.keyboard.press("Space")
    assert page.evaluate("document.querySelectorAll('#list .good').length") == 0


def test_boxes_are_drawn_where_they_are_in_the_original(page, made):
    page.select_option("#filter-condition", "predicted")
    page.check("#filter-low_overlap")
    first = next(each for each in made if each["condition"] == "predicted" and OUTCOMES["low_overlap"](each))
    drawn = {
        kind: page.evaluate(
            f"['x', 'y', 'width', 'height'].map(name => "
            f"+document.querySelector('#rollout svg .{kind}').getAttribute(name))"
        )
        for kind in ("crop", "target")
    }
    for kind, (left, top, right, bottom) in (("crop", first["boxes"][0]), ("target", first["targets"][0][0])):
        assert drawn[kind] == [left, top, right - left, bottom - top]
    assert page.locator("#rollout > svg").get_attribute("viewBox") == "0 0 1600 1200"
    # The picture and the crop of the conversation are really there.
    widths = "[...document.querySelectorAll('#rollout img')].map(each => each.naturalWidth)"
    page.evaluate("Promise.all([...document.querySelectorAll('#rollout img')].map(each => each.decode()))")
    assert page.evaluate(widths) == [256, 130]


def test_what_a_model_wrote_is_text(page):
    page.select_option("#filter-condition", "predicted")
    assert EVIL in page.evaluate("[...document.querySelectorAll('.says')].map(each => each.textContent)")
    assert page.locator("#rollout script, #rollout img[src=x]").count() == 0


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_of_the_window(page, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
