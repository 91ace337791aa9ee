import json

import pytest

from lfpc_trl import cli
from lfpc_trl.commands.compare import main
from lfpc_trl.errors import UserError
from tests.evaluate.fake import rollouts, write_evaluation
from tests.evaluate.test_report import Page

ONE = {"vstar": ("Attr", "Spatial")}


def made(**options):
    return rollouts(**{"questions": 30, "orders": 1, "budgets": (1024,), "benchmarks": ONE} | options)


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluations")
    return (
        write_evaluation(
            folder / "base",
            made(skill=0.3, seed=1),
            settings={"versions": {"torch": "2.12", "trl": "1.16"}, "fingerprint": "a"},
        ),
        write_evaluation(
            folder / "stage1",
            made(skill=0.95, seed=2),
            settings={
                "crop_tokens": 512,
                "versions": {"torch": "2.13", "trl": "1.16"},
                "fingerprint": "b",
            },
        ),
    )


def compare(tmp_path, *evaluations, **options):
    arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
    main([*map(str, evaluations), "--output", str(tmp_path / "comparison"), *arguments])
    return json.loads((tmp_path / "comparison" / "comparison.json").read_text())


def accuracy(groups):
    return next(group["figures"]["accuracy"] for group in groups if group["category"] is None)


def test_models_stand_side_by_side_with_paired_differences(tmp_path, evaluations, capsys):
    found = compare(tmp_path, *evaluations)
    assert list(found["models"]) == ["base", "stage1"]
    assert found["baseline"] == "base"
    assert list(found["changes"]) == ["stage1"]
    before, after = (accuracy(found["models"][name]["groups"]) for name in ("base", "stage1"))
    change = accuracy(found["changes"]["stage1"])
    assert change["value"] == pytest.approx(after["value"] - before["value"])
    assert change["n"] == 30
    assert change["low"] > 0
    text = (tmp_path / "comparison" / "tables.md").read_text()
    assert "## Compared with base, at 1,024 visual tokens" in text
    settings = text.partition("## Settings that differ")[2]
    assert "| crop_tokens | 1024 | 512 |" in settings
    assert '| versions.torch | "2.12" | "2.13" |' in settings
    assert "trl" not in settings
    assert "fingerprint" not in settings
    html = (tmp_path / "comparison" / "report.html").read_text()
    page = Page(html)
    said = "".join(page.text)
    assert "stage1: accuracy +" in said
    assert "better than base" in said
    assert "script" not in page.tags  # no rollouts, so nothing to run
    assert "script-src &#39;none&#39;" in html
    assert f"page: {tmp_path / 'comparison' / 'report.html'}" in capsys.readouterr().out


def test_names_baseline_and_threshold_are_the_users(tmp_path, evaluations):
    base, stage1 = evaluations
    found = compare(
        tmp_path, f"old={base}", f"new={stage1}", f"again={base}", baseline="new", **{"poor-overlap": "0.9"}
    )
    assert list(found["models"]) == ["old", "new", "again"]
    assert list(found["changes"]) == ["old", "again"]
    assert accuracy(found["changes"]["old"])["high"] < 0
    assert found["models"]["old"]["settings"]["poor_overlap"] == 0.9


def test_a_comparison_with_itself_finds_nothing(tmp_path, evaluations):
    found = compare(tmp_path, evaluations[0], f"same={evaluations[0]}")
    for group in found["changes"]["same"]:
        for figure in group["figures"].values():
            assert figure["value"] in (None, 0.0)
            assert figure["low"] is None


def test_what_only_some_hold_is_left_out_and_said(tmp_path, evaluations, capsys):
    more = made(skill=0.9, benchmarks=ONE | {"own": ("a",)}, budgets=(1024, 4096))
    large = write_evaluation(tmp_path / "large", more)
    found = compare(tmp_path, evaluations[0], large)
    assert {(group["benchmark"], group["budget"]) for group in found["models"]["large"]["groups"]} == {
        ("vstar", 1024)
    }
    assert found["notes"] == [
        "own: not in all evaluations (large has it).",
        "vstar is compared at 1,024 visual tokens only: base at 1,024; large at 1,024 and 4,096.",
    ]
    said = capsys.readouterr().out
    assert all(f"note: {note}" in said for note in found["notes"])


def changed(name, value, row="vstar-7-0"):
    return [each | ({name: value} if each["row_id"] == row else {}) for each in made(seed=3)]


DIFFERENT = [  # id, rollouts of the other evaluation, message
    (
        "fewer questions",
        lambda: made(questions=20),
        "different questions of vstar: 10 of 30 rows are only in base, such as vstar-20-0",
    ),
    (
        "more questions",
        lambda: made(questions=31),
        "different questions of vstar: 1 of 31 rows are only in other, such as vstar-30-0",
    ),
    (
        "another text",
        lambda: changed("question", "Why?"),
        r"row vstar-7-0 differs in its question: 'What is written on sign 7\?' and 'Why\?'",
    ),
    (
        "another order of options",
        lambda: changed("choices", ["B", "A"]),
        "row vstar-7-0 differs in its choices",
    ),
    ("another answer", lambda: changed("accepted", ["B"]), "row vstar-7-0 differs in its accepted"),
    (
        "another budget",
        lambda: made(budgets=(2048,)),
        "the budgets of vstar do not overlap: base at 1,024; other at 2,048",
    ),
    (
        "another benchmark",
        lambda: made(benchmarks={"own": ("a",)}),
        "the evaluations share no benchmark: base has vstar; other has own",
    ),
]


@pytest.mark.parametrize(("_", "other", "message"), DIFFERENT, ids=[case[0] for case in DIFFERENT])
def test_evaluations_of_different_questions_are_refused(tmp_path, evaluations, _, other, message):
    with pytest.raises(UserError, match=message):
        compare(tmp_path, evaluations[0], write_evaluation(tmp_path / "other", other()))
    assert not (tmp_path / "comparison").exists()


def test_bad_arguments_are_refused_before_anything_is_read(tmp_path, evaluations):
    base, stage1 = map(str, evaluations)
    cases = {
        (base,): "a comparison needs at least two evaluations, got 1",
        (base, base): f"two evaluations need two names; write NAME={base}",
        (base, str(tmp_path / "none")): "none: no such directory",
        (base, "x=none"): "none: no such directory",
        (base, stage1, "--baseline", "stage2"): "--baseline must be one of base, stage1, got 'stage2'",
        (base, stage1, "--poor-overlap", "0"): "--poor-overlap must lie above 0 and at most at 1, got 0",
        (base, str(tmp_path)): "no evaluation.json found",
    }
    for arguments, message in cases.items():
        with pytest.raises(UserError) as refused:
            main([*arguments, "--output", str(tmp_path / "comparison")])
        assert message in str(refused.value)
    with pytest.raises(UserError, match="--output must not be one of the evaluations"):
        main([base, stage1, "--output", stage1])


def test_the_command_is_known(tmp_path, evaluations, capsys):
    assert cli.main(["compare", str(evaluations[0]), "--output", str(tmp_path)]) == 2
    assert "at least two evaluations" in capsys.readouterr().err
