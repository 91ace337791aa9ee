import base64
import html as entities
import json
import re
import zlib

import pytest

from lfpc_trl.errors import DataError, UserError
from lfpc_trl.evaluate.examples import as_script_data, choose, examples_of
from lfpc_trl.evaluate.outputs import read_about, read_columns, write_outputs
from lfpc_trl.evaluate.page import comparison_story, story_of
from lfpc_trl.evaluate.summary import CONDITIONS, summarise
from lfpc_trl.runs.reading import Run
from tests.evaluate.fake import columns_of, jpeg, rollout, rollouts, write_evaluation
from tests.evaluate.test_report import Page

EVIL = "</script><script>document.title='taken over'</script><img src=x onerror=alert(1)>{{ 7 * 191 }}<!--"


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page).group(1))


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = write_evaluation(
        tmp_path_factory.mktemp("evaluations") / "mine",
        questions=10,
        benchmarks={"vstar": ("Attr", "Spatial")},
    )
    write_outputs(folder)
    return folder


# --- the files of an evaluation ----------------------------------------------------------------------


def test_figures_tables_and_page_are_written(output):
    about = json.loads((output / "evaluation.json").read_text())
    assert about["figures"] == summarise(read_columns(output))
    assert about["settings"]["model"] == "models/mine"
    assert "| mine | accuracy |" in (output / "tables.md").read_text()
    assert "<h1>Evaluation of mine</h1>" in (output / "report.html").read_text()
    assert not list(output.glob("*.tmp"))


def test_writing_again_gives_the_same_bytes(output):
    names = ("evaluation.json", "tables.md", "report.html")
    before = [(output / name).read_bytes() for name in names]
    write_outputs(output)
    assert [(output / name).read_bytes() for name in names] == before


def test_the_trajectory_page_reads_an_evaluation(output):
    assert len(Run(output)) == len(read_columns(output)["row_id"])


def test_what_is_no_evaluation_is_said_so(tmp_path):
    with pytest.raises(UserError, match=r"no evaluation\.json found; not the output of a finished lfpc eval"):
        write_outputs(tmp_path)
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(DataError, match=r"evaluation\.json: not JSON"):
        read_about(tmp_path)
    with pytest.raises(UserError, match="no rollouts of an evaluation found"):
        read_columns(tmp_path)


def test_files_of_something_else_are_named(tmp_path, output):
    (tmp_path / "trajectories").mkdir()
    broken = tmp_path / "trajectories" / "part-0.parquet"
    broken.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"part-0\.parquet: not a readable Parquet file"):
        read_columns(tmp_path)
    broken.write_bytes(next((output / "trajectories").iterdir()).read_bytes())
    with pytest.raises(DataError, match=r"part-0\.parquet: not an evaluation file, column mirror is missing"):
        read_columns(tmp_path, ("row_id", "mirror"))


# --- the page ----------------------------------------------------------------------------------------


def test_the_page_needs_nothing_beside_itself(output):
    text = (output / "report.html").read_text()
    page = Page(text)
    assert page.links
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in page.links)
    assert page.tags.count("script") == 2
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert set(re.findall(r"https?://[^\"' <\\]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert re.search(r"default-src &#39;none&#39;; img-src data:;.* script-src &#39;sha256-", text)


def test_what_models_and_files_wrote_is_text_and_not_html(tmp_path):
    made = [
        each | {"category": EVIL, "question": EVIL, "answer": EVIL, "choices": [EVIL], "benchmark": EVIL}
        for each in rollouts(questions=2, text=EVIL)
    ]
    folder = write_evaluation(tmp_path / "x", made, settings={EVIL: EVIL, "model": EVIL})
    write_outputs(folder)
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert "1337" not in "".join(page.text)
    assert data_of(text)["rollouts"][0]["question"] == EVIL
    assert EVIL not in text
    assert entities.escape(EVIL, quote=False) in text.replace("&#39;", "'")
    assert "<script" not in (folder / "tables.md").read_text()


NASTY = ["</script>", "<!-- <script>", "&lt;", "\u2028\u2029", '"\\', "\x00", "é"]


@pytest.mark.parametrize("text", NASTY)
def test_json_in_a_script_element_comes_back_and_ends_nothing(text):
    written = as_script_data({"text": text})
    assert json.loads(written) == {"text": text}
    assert not set(written) & set("<>&\u2028\u2029")


def test_half_a_surrogate_pair_does_not_stop_the_page(tmp_path):
    made = rollouts(questions=1, orders=1, budgets=(1024,), conditions=("predicted",))
    made[0]["messages"] = json.dumps([{"role": "assistant", "content": "\ud83d"}])
    write_outputs(write_evaluation(tmp_path / "x", made))
    assert data_of((tmp_path / "x" / "report.html").read_text())["rollouts"]


def test_one_rollout_makes_a_page(tmp_path):
    write_outputs(write_evaluation(tmp_path / "x", rollouts(questions=1, orders=1)[:1]))
    text = "".join(Page((tmp_path / "x" / "report.html").read_text()).text)
    assert not re.search(r"\b(nan|None)\b", text)


# --- sentences ---------------------------------------------------------------------------------------


def test_the_story_is_told_from_the_figures():
    def told(lost):
        made = [rollout(row_id=str(n), crops=1, crop_tokens=50.0) for n in range(40)]
        made += [
            rollout(row_id=str(n), condition="noise", accuracy=float(n >= lost), crops=1) for n in range(40)
        ]
        ((heading, sentences),) = story_of(summarise(columns_of(made)))
        assert heading == "vstar at 1,024 visual tokens"
        return " ".join(sentences)

    assert "its answers use the content of the crops" in told(20)
    assert "this does not show that it uses its crops" in told(1)
    assert "so no interval and no conclusion" in told(0)
    assert "Answers 100.0 % of 40 questions correctly." in told(0)
    assert "A crop takes 50 visual tokens; a question takes 1,050 in all." in told(0)


VERDICTS = [
    ((0.1, 0.3), "better than base"),
    ((-0.3, -0.1), "worse than base"),
    ((-0.1, 0.1), "no significant difference"),
]


@pytest.mark.parametrize(("interval", "verdict"), VERDICTS)
def test_a_comparison_says_better_only_where_the_interval_does(interval, verdict):
    nothing = {"value": None, "low": None, "high": None, "n": 0}
    change = {"value": sum(interval) / 2, "low": interval[0], "high": interval[1], "n": 50}
    group = {"benchmark": "vstar", "budget": 1024, "category": None, "figures": {"accuracy": change}}
    group["figures"]["predicted - noise"] = nothing
    ((_, (sentence,)),) = comparison_story({"new": [group]}, "base")
    assert verdict in sentence
    assert "over 50 questions" in sentence


# --- which rollouts ----------------------------------------------------------------------------------


def test_every_filter_finds_some():
    columns = columns_of(rollouts(questions=30))
    for limit in (20, 60, 300):
        chosen = choose(columns, limit)
        assert len(chosen) == len(set(chosen)) == limit
        picked = [{name: columns[name][place] for name in columns} for place in chosen]
        for name in ("benchmark", "budget", "condition"):
            assert {each[name] for each in picked} == set(columns[name])
        assert any(each["accuracy"] == 0 for each in picked)
        assert any(each["crops"] == 0 for each in picked)
        assert any(each["overlap"] is not None and each["overlap"] < 0.9 for each in picked)


def test_a_rare_outcome_is_not_lost_in_a_large_evaluation():
    made = [rollout(row_id=str(number), crops=1, overlap=1.0) for number in range(2000)]
    made[1234] |= {"overlap": 0.3, "accuracy": 0.0}
    assert 1234 in choose(columns_of(made), 10)


def test_of_alike_rollouts_the_checksum_of_the_row_decides():
    names = [str(number) for number in range(20)]
    places = choose(columns_of([rollout(row_id=name) for name in names]), 3)
    assert [names[place] for place in places] == sorted(names, key=lambda name: zlib.crc32(name.encode()))[:3]


def test_all_are_shown_where_they_are_few():
    columns = columns_of(rollouts(questions=1))
    assert sorted(choose(columns, 300)) == list(range(len(columns["row_id"])))


def test_pictures_are_bounded_and_shared(tmp_path):
    made = rollouts(questions=4, orders=1)
    folder = write_evaluation(tmp_path / "x", made)
    columns = read_columns(folder)
    whole = examples_of(folder, columns)
    assert len(whole["rollouts"]) == whole["count"] == len(made)
    different = {picture for each in made for picture in each["thumbnails"]}
    assert len(whole["pictures"]) == len(different)
    pictures = [base64.b64decode(picture) for picture in whole["pictures"]]
    for found, each in zip(whole["rollouts"], made, strict=True):
        assert [pictures[number] for number in found["pictures"]] == each["thumbnails"]
    room = 3 * max(map(len, different))
    some = examples_of(folder, columns, picture_bytes=room)
    assert 0 < len(some["rollouts"]) < len(made)
    assert sum(len(each) for each in some["pictures"]) * 3 / 4 <= room


def test_a_rollout_keeps_its_own_conversation_and_pictures(tmp_path):
    made = rollouts(questions=3, orders=1, budgets=(1024,))
    for number, each in enumerate(made):
        each["messages"] = json.dumps([{"role": "assistant", "content": f"rollout {number}"}])
        each["thumbnails"] = [jpeg((7 * number, 0, 0))]
    folder = write_evaluation(tmp_path / "x", made)
    found = examples_of(folder, read_columns(folder))
    assert [each["messages"][0]["parts"][0]["text"] for each in found["rollouts"]] == [
        f"rollout {number}" for number in range(len(made))
    ]
    assert [each["condition"] for each in found["rollouts"]] == [each["condition"] for each in made]
    assert {each["condition"] for each in found["rollouts"]} == set(CONDITIONS)
    assert len({each["pictures"][0] for each in found["rollouts"]}) == len(made)


def test_a_runaway_text_is_cut(tmp_path):
    made = rollouts(questions=1, orders=1, budgets=(1024,), conditions=("predicted",), text="z" * 100_000)
    folder = write_evaluation(tmp_path / "x", made)
    written = json.dumps(examples_of(folder, read_columns(folder)))
    assert "z" * 4000 in written
    assert "z" * 4001 not in written
