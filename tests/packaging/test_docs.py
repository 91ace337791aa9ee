"""The pages agree with the program: links, options, error sentences, commands and examples."""

import argparse
import ast
import dataclasses
import re
import shlex
import shutil
from pathlib import Path

import pytest

from lfpc_trl import cli
from lfpc_trl.train.launch import processes_of
from lfpc_trl.train.recipe import REFUSED, LaunchSettings, parse, recipe_file, recipe_names, recipe_of
from lfpc_trl.train.settings import StageSettings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
SOURCES = ROOT / "integrations" / "lfpc_trl"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def blocks(page: Path, language: str) -> list[str]:
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


# --- links -------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page):
    broken = []
    for link in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_index_leads_to_every_page():
    linked = {
        (DOCS / link.partition("#")[0]).resolve()
        for link in re.findall(r"\]\(([^)]+)\)", (DOCS / "index.md").read_text(encoding="utf-8"))
    }
    assert [name_of(page) for page in sorted(DOCS.rglob("*.md")) if page.resolve() not in linked] == [
        "docs/index.md"
    ]


# --- the command line --------------------------------------------------------------------------------


def actions(command: str) -> list[argparse.Action]:
    """The options of a command, without --help; for train without the settings, which have their own page."""
    module = cli.load(command)
    everything = module.make_parser()._actions
    found = [
        action
        for action in everything
        if action.dest != "help" and action.option_strings and action.help != argparse.SUPPRESS
    ]
    if command == "train":
        own = {"config", *module.RunArguments.__dataclass_fields__}
        found = [action for action in found if action.dest in own]
    return found


def options(action: argparse.Action) -> list[str]:
    """How an option is written; TRL's parser knows words joined by either sign, the page by dashes alone."""
    return [option for option in action.option_strings if "_" not in option]


def sections() -> dict[str, str]:
    """Command: its part of the page."""
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^## `lfpc ([\w-]+)`\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))


def option_rows(section: str) -> list[list[str]]:
    """The cells of every table row that begins with an option."""
    rows = re.findall(r"^\| (`--.*) \|$", section, re.MULTILINE)
    return [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", row)] for row in rows]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def as_written(default: object) -> str:
    return {"True": "on", "False": "off", "None": "none"}.get(str(default), str(default))


def test_the_page_has_all_commands_and_no_others():
    assert sorted(sections()) == sorted(cli.COMMANDS)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_page_has_all_options_of_a_command_and_no_others(command):
    documented = sorted(option for row in option_rows(sections()[command]) for option in quoted(row[0]))
    assert documented == sorted(option for action in actions(command) for option in options(action))


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_page_has_what_stands_before_the_options(command):
    places = [action for action in cli.load(command).make_parser()._actions if not action.option_strings]
    words = " ".join(["lfpc", command, *(str(action.metavar) for action in places)])
    assert not places or f"`{words}" in sections()[command]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_values_and_defaults_on_the_page_are_those_of_the_program(command):
    rows = {quoted(row[0])[0]: row for row in option_rows(sections()[command])}
    required = {"config", "model", "data", "output"} if command == "train" else set()
    for action in actions(command):
        option = options(action)[0]
        _, value, default, *_ = rows[option]
        is_flag = action.nargs == 0 or (action.nargs == "?" and action.const is True)
        if action.choices:
            assert quoted(value) == [str(choice) for choice in action.choices], option
        elif is_flag:
            assert value == "flag", option
        elif command != "train":  # TRL's parser names no values
            assert quoted(value) == [action.metavar or action.dest.upper()], option
        if action.required or action.dest in required:
            assert default == "required", option
        elif is_flag:
            assert default == "off", option
        elif action.default is not None:
            assert quoted(default) == [str(action.default)], option
        else:
            assert quoted(default) in ([], ["shown_size"]), option


# --- recipes -----------------------------------------------------------------------------------------


def settings_rows() -> dict[str, list[str]]:
    """Setting: its cells, from the page on recipes."""
    text = (DOCS / "reference" / "recipes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    return {name: row for row in cells for name in quoted(row[0])}


@pytest.mark.parametrize("settings", [StageSettings, LaunchSettings])
def test_the_page_on_recipes_has_every_setting_with_its_default(settings):
    rows = settings_rows()
    for field in dataclasses.fields(settings):
        default = rows[field.name][2]
        if field.name == "num_processes":
            assert default == "the configuration's"
        elif field.default is dataclasses.MISSING:
            assert (default, field.default_factory()) == ("none", []), field.name
        else:
            assert quoted(default) == [as_written(field.default)], field.name


def test_the_page_on_recipes_has_what_is_refused_and_why():
    rows = settings_rows()
    assert {name: rows[name][1] for name in REFUSED} == REFUSED


def test_the_page_on_recipes_names_every_recipe():
    assert {name.partition("-stage")[0] for name in recipe_names()} <= set(settings_rows())


SOURCES_OF_VALUES = ("Table 12", "Table 11", "section 5.1", "our choice", "verl", "DeepEyes")


def test_sources_of_settings_on_the_page_are_those_in_the_code():
    code = (SOURCES / "train" / "settings.py").read_text(encoding="utf-8")
    fields = re.findall(
        r"^    (\w+): [^\n]*= (?:_option|field)\((.*?)(?=^    \w+: |^    # |^    def )",
        code,
        re.DOTALL | re.MULTILINE,
    )
    assert [name for name, _ in fields] == [field.name for field in dataclasses.fields(StageSettings)]
    for name, text in fields:
        comment = "".join(re.findall(r"#(.*)$", text, re.MULTILINE))
        written = {source for source in SOURCES_OF_VALUES if source in settings_rows()[name][3]}
        assert written == {source for source in SOURCES_OF_VALUES if source in comment}, name


def commands(page: Path) -> list[list[str]]:
    """The arguments of every `lfpc ...` in the shell examples of a page."""
    found = []
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "lfpc" in words:
                words = words[words.index("lfpc") + 1 :]
                ends = [words.index(sign) for sign in ("&&", ">") if sign in words]
                found.append(words[: min(ends, default=None)])
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_every_command_on_a_page_is_understood_by_the_program(page):
    for words in commands(page):
        parser = cli.load(words[0]).make_parser()
        if words[0] == "train":
            words[words.index("--config") + 1] = str(recipe_file(words[words.index("--config") + 1]))
            recipe = recipe_of(parse(parser, words[1:]))
            recipe.check(processes_of(recipe.launch))
        else:
            parser.parse_args(words[1:])


def test_columns_of_metrics_are_documented():
    from lfpc_trl.train.run import _TRL_NAMES

    lines = sections()["train"].splitlines()
    written = quoted(next(line for line in lines if line.startswith("| `metrics.jsonl`")))
    assert set(written) - {"metrics.jsonl", "null", "step", "alert"} == set(_TRL_NAMES)


# --- error sentences ---------------------------------------------------------------------------------


def sentence(node: ast.expr, names: dict[str, str]) -> str | None:
    """A string or f-string as a pattern: a placeholder matches anything, a name of a text is that text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.escape(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = []
        for part in node.values:
            inner = part.value if isinstance(part, ast.FormattedValue) else None
            if isinstance(inner, ast.Name) and inner.id in names:
                parts.append(re.escape(names[inner.id]))
            else:
                parts.append(".*" if inner is not None else sentence(part, names) or "")
        return "".join(parts)
    return None


def raised_in(module: str) -> set[str]:
    """Patterns of every sentence with which a module refuses a file or a row."""
    tree = ast.parse((SOURCES / module).read_text(encoding="utf-8"))
    names = {
        node.targets[0].id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) == 1]
    called = [(ast.unparse(node.func), sentence(node.args[0], names)) for node in calls]
    patterns = {p for name, p in called if name in ("_RuleError", "DataError", "problems.append") and p}
    # "FILE row N: " stands before every problem of a row, the page leaves it out.
    return {pattern.removeprefix(r".*\ row\ .*:\ ") for pattern in patterns} - {".*"}


def quoted_errors() -> list[str]:
    text = (DOCS / "reference" / "rows.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| message \|.*\n\|[- |]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [quoted(row)[0] for table in tables for row in table.splitlines()]


def refused() -> set[str]:
    """Patterns of every sentence with which data are refused while they are read."""
    modules = ("rows", "columns", "files", "sources")
    return set().union(*(raised_in(f"data/{name}.py") for name in modules))


@pytest.mark.parametrize("message", quoted_errors())
def test_every_error_on_the_page_about_rows_is_one_of_the_program(message):
    assert any(re.fullmatch(pattern, message) for pattern in refused())


@pytest.mark.parametrize("pattern", sorted(raised_in("data/rows.py")))
def test_every_error_of_the_program_about_rows_is_on_the_page(pattern):
    assert any(re.fullmatch(pattern, message) for message in quoted_errors())


def test_the_check_of_errors_can_fail():
    made_up = "targets must be pretty, got [1]"
    assert not any(re.fullmatch(pattern, made_up) for pattern in refused())


def test_every_column_is_documented():
    from lfpc_trl.data.rows import COLUMNS, METADATA

    page = (DOCS / "reference" / "rows.md").read_text(encoding="utf-8")
    first_cells = " ".join(re.findall(r"^\| (`[^|]*)\|", page, re.MULTILINE))
    assert [name for name in (*COLUMNS, *METADATA) if f"`{name}`" not in first_cells] == []


# --- the small world and evaluation ------------------------------------------------------------------


def test_the_page_on_the_small_world_names_every_phase_of_the_warm_up():
    from lfpc_trl.demo.warm_up import PHASES

    page = (DOCS / "explanation" / "demo-world.md").read_text(encoding="utf-8")
    assert [phase.name for phase in PHASES if f"`{phase.name}`" not in page] == []


@pytest.mark.slow
def test_the_evaluation_example_runs_and_prints_the_documented_metrics(tmp_path, monkeypatch, capsys):
    import torch

    from lfpc_trl.demo import world

    torch.set_num_threads(1)  # a small model is faster so, above all beside other work
    data = tmp_path / "lfpc-demo" / "data"
    list(world.make_pictures(data, 1, seed=0, photos=world.UNSEEN_PHOTOS, name="test"))
    shutil.copytree(SOURCES / "demo" / "warm", tmp_path / "lfpc-demo" / "stage2")
    monkeypatch.chdir(tmp_path)
    page = DOCS / "how-to" / "evaluate.md"
    [example] = blocks(page, "python")
    exec(compile(example, str(page), "exec"), {})
    printed = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    documented = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert printed == {name for cell in documented for name in quoted(cell)}
