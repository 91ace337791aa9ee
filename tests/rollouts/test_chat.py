"""Rollouts with a server: the transcripts of our own engines, whatever the server does."""

import dataclasses
import json
import logging
import threading

import pytest
from PIL import Image

pytest.importorskip("openai", reason="the client of such servers is not installed")

from lfpc_rewards import Frame
from lfpc_trl.errors import UserError
from lfpc_trl.models.endpoint import Endpoint, EndpointSettings, NoReply, check_url
from lfpc_trl.models.processors import load_processor
from lfpc_trl.pictures.originals import load_shown
from lfpc_trl.rollouts.chat import NEXT_MESSAGE, EndpointEngine, data_url, prompt_tokens
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.generate import Job, Rollout, RolloutSettings, Usage, stream_rollouts
from lfpc_trl.rollouts.transcript import ending, score_transcripts
from tests.stub_server import ANSWER, calls, looks_once, pictures, says, stub_server

CROPS = CropSettings(Frame.SHOWN, 28, crop_tokens=16, max_crops=2)
pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")


def engine_of(stub, **options):
    settings = EndpointSettings(stub.url, "big-model", **{"timeout": 20.0, "retries": 3} | options)
    return EndpointEngine(Endpoint(settings), 28)


def run(engine, jobs, **settings):
    """The outcomes of jobs in their order, and what was told meanwhile."""
    waiting = iter(jobs)
    found = dict(
        stream_rollouts(
            engine,
            lambda: next(waiting, None),
            RolloutSettings(**{"max_turns": 3, "max_new_tokens": 50} | settings),
        )
    )
    return [found[job] for job in jobs]


# --- the same transcripts ----------------------------------------------------------------------------


def test_a_rollout_has_the_messages_that_our_engines_give_it(row):
    with stub_server() as stub:
        [rollout] = run(engine_of(stub), [Job(row, CROPS)])
    call = {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [10, 10, 60, 50]}}
    first, crop, last = rollout.messages
    assert first == {
        "role": "assistant",
        "content": f"<think>near</think><tool_call>{json.dumps(call)}</tool_call>",
    }
    assert (crop["role"], crop["name"]) == ("tool", "image_zoom_in_tool")
    assert last == {"role": "assistant", "content": ANSWER}
    [score] = score_transcripts([rollout.messages], [row], CROPS)
    assert (score.accuracy, score.format, score.tool_bonus, score.crops) == (1, 0, 1, ((20, 20, 120, 100),))
    assert ending(rollout.messages, max_turns=3, complete=rollout.complete, calls=rollout.calls) == "finished"
    assert rollout.usage == Usage(200, 14)


def test_the_server_is_sent_what_our_engines_read(row):
    with stub_server() as stub:
        [rollout] = run(engine_of(stub), [Job(row, CROPS)])
    first, second = stub.bodies
    assert first["model"] == "big-model"
    assert (first["max_tokens"], first["temperature"]) == (50, 0)
    assert "seed" not in first
    [tool] = first["tools"]
    assert tool["function"]["name"] == "image_zoom_in_tool"
    system, user = first["messages"]
    assert "tool call" in system["content"]
    assert user["content"][1] == {"type": "text", "text": "What is on the sign?"}
    # Every pixel, at the size in which it is shown; then the crop, behind the call that asked for it.
    [shown] = pictures(first)
    assert shown.tobytes() == load_shown(row.image, row.shown_size).convert("RGB").tobytes()
    *_, turn, answer = second["messages"]
    assert turn["tool_calls"][0]["id"] == answer["tool_call_id"]
    assert pictures(second)[1].tobytes() == rollout.messages[1]["content"][0]["image"].tobytes()


def test_crops_can_stand_in_the_messages_of_the_user(row):
    with stub_server() as stub:
        [rollout] = run(engine_of(stub, crops_in="user"), [Job(row, CROPS)])
    *_, answer, user = stub.bodies[1]["messages"]
    assert (answer["role"], answer["content"], user["role"]) == ("tool", NEXT_MESSAGE, "user")
    assert len(pictures(stub.bodies[1])) == 2
    assert len(score_transcripts([rollout.messages], [row], CROPS)[0].crops) == 1


TURNS = [  # id, turn, text of the turn, ending, calls that are answered
    ("words", says("A"), "A", "finished"),
    ("cut", {**says("<think>so"), "finish_reason": "length"}, "<think>so", "cut"),
    ("nothing", says(None), "", "finished"),
    (
        "reasoning apart",
        {
            "message": {"role": "assistant", "content": "A", "reasoning_content": "so"},
            "finish_reason": "stop",
        },
        "<think>so</think>A",
        "finished",
    ),
    ("thinking that the template opened", says("so</think>A"), "<think>so</think>A", "finished"),
    (
        "arguments that are no JSON",
        calls('{"bbox_2d": [1,'),
        '<think>near</think><tool_call>{"bbox_2d": [1,</tool_call>',
        "malformed",
    ),
]


@pytest.mark.parametrize(
    ("turn", "text", "end"), [each[1:] for each in TURNS], ids=[each[0] for each in TURNS]
)
def test_a_turn_becomes_one_text(turn, text, end, row):
    with stub_server(lambda _: turn) as stub:
        [rollout] = run(engine_of(stub), [Job(row, CROPS)])
    assert rollout.messages == [{"role": "assistant", "content": text}]
    assert ending(rollout.messages, max_turns=3, complete=rollout.complete, calls=rollout.calls) == end


def test_calls_that_cannot_be_served_are_told_why(row):
    bad = [calls([1, 2]), calls([50, 50, 20, 20], '"box"'), calls([9, 9, 50, 50], name="draw"), says("A")]
    turns = iter(bad)
    with stub_server(lambda _: next(turns)) as stub:
        [rollout] = run(engine_of(stub), [Job(row, CROPS)], max_turns=5)
    answers = [message["content"] for message in rollout.messages if message["role"] == "tool"]
    assert len(answers) == 4
    assert all("error" in answer for answer in answers)


def test_the_last_turn_allowed_is_not_answered(row):
    with stub_server(lambda _: calls([10, 10, 60, 50])) as stub:
        [rollout] = run(engine_of(stub), [Job(row, CROPS)], max_turns=2)
    assert [message["role"] for message in rollout.messages] == ["assistant", "tool", "assistant"]
    assert ending(rollout.messages, max_turns=2, complete=True, calls=rollout.calls) == "over_turn"


def test_without_the_tool_none_is_offered_and_there_is_one_turn(row):
    with stub_server() as stub:
        [rollout] = run(engine_of(stub), [Job(row, CROPS, tools=False)])
    assert "tools" not in stub.bodies[0]
    assert rollout.messages == [{"role": "assistant", "content": ANSWER}]


def test_a_first_turn_can_be_given_and_is_not_asked_again(row):
    """As conditions of an evaluation begin; it goes through JSON on its way."""
    noise = dataclasses.replace(CROPS, crop_source="noise")
    with stub_server() as stub:
        engine = engine_of(stub)
        [predicted] = run(engine, [Job(row, CROPS)])
        turn = tuple(json.loads(json.dumps(predicted.first_turn)))
        [other] = run(engine, [Job(row, noise, first_turn=turn)])
    assert len(stub.bodies) == 3
    assert other.messages[0] == predicted.messages[0]
    assert other.messages[1] != predicted.messages[1]
    assert other.first_turn == predicted.first_turn


def test_sampling_has_a_seed_of_the_row_and_the_draw(row):
    with stub_server() as stub:
        run(engine_of(stub), [Job(row, CROPS, sample=sample) for sample in (0, 1)], temperature=0.7)
    first, second = {body["seed"] for body in stub.bodies if len(body["messages"]) == 2}
    assert first != second
    assert {body["temperature"] for body in stub.bodies} == {0.7}


def test_a_slow_rollout_holds_up_no_other_and_no_more_than_so_many_are_asked(row):
    others = threading.Event()
    done = []

    def model(body):
        if "slow" in json.dumps(body["messages"]):
            assert others.wait(20)
        return looks_once(body)

    jobs = [Job(dataclasses.replace(row, id="slow", question="slow"), CROPS)]
    jobs += [Job(dataclasses.replace(row, id=f"q{index}"), CROPS) for index in range(6)]
    waiting = iter(jobs)
    with stub_server(model) as stub:
        stream = stream_rollouts(
            engine_of(stub), lambda: next(waiting, None), RolloutSettings(max_turns=3, batch_size=3)
        )
        for job, outcome in stream:
            assert isinstance(outcome, Rollout)
            done.append(job.row.id)
            if len(done) == 6:
                others.set()
    assert done[-1] == "slow"
    assert stub.most <= 3


# --- servers that fail -------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["500", "429", "truncate", "no json", "no choices", "max_tokens"])
def test_what_fails_for_a_while_is_asked_again(fault, row):
    with stub_server(faults=[fault]) as stub:
        [rollout] = run(engine_of(stub), [Job(row, CROPS)])
    assert isinstance(rollout, Rollout)
    assert rollout.messages[-1]["content"] == ANSWER
    if fault == "max_tokens":
        assert all(body["max_completion_tokens"] == 50 for body in stub.bodies)


def test_a_server_that_stalls_is_asked_again(row):
    with stub_server(faults=["stall"]) as stub:
        [rollout] = run(engine_of(stub, timeout=0.5), [Job(row, CROPS)])
    assert rollout.messages[-1]["content"] == ANSWER


def test_a_conversation_that_is_refused_costs_no_other(row):
    with stub_server(faults=[None, None, "too long"]) as stub:
        engine = engine_of(stub)
        [good] = run(engine, [Job(row, CROPS)])
        [bad] = run(engine, [Job(row, CROPS)])
        [again] = run(engine, [Job(row, CROPS)])
    assert isinstance(good, Rollout)
    assert isinstance(bad, NoReply)
    assert "the server refuses it" in str(bad)
    assert "maximum context length" in str(bad)
    assert isinstance(again, Rollout)


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (["500"] * 9, r"gives no answer, InternalServerError: .*out of memory"),
        (["404"] * 9, r"NotFoundError: .*does not exist"),
        (["401"] * 9, r"AuthenticationError: .*; a key is read from LFPC_ENDPOINT_KEY or OPENAI_API_KEY"),
        (["no choices"] * 9, r"gives no answer, its reply is none \(IndexError"),
    ],
)
def test_a_server_that_never_answers_ends_the_work_at_once(faults, message, row):
    jobs = [Job(dataclasses.replace(row, id=str(index)), CROPS) for index in range(50)]
    with stub_server(faults=faults) as stub, pytest.raises(UserError, match=message):
        run(engine_of(stub, retries=1), jobs, batch_size=1)


def test_a_server_that_stops_answering_ends_the_work(row):
    jobs = [Job(dataclasses.replace(row, id=str(index)), CROPS) for index in range(50)]
    message = "has stopped answering, 8 requests failed one after another"
    with stub_server(faults=[None, None, *["500"] * 99]) as stub, pytest.raises(UserError, match=message):
        run(engine_of(stub, retries=0), jobs, batch_size=1)
    assert len(stub.headers) == 2 + 1 + 8  # and the count of a second prompt


def test_no_server_at_all_is_one_clear_error(row):
    with stub_server() as stub:
        pass
    with pytest.raises(UserError, match=rf"{stub.url}: gives no answer, APIConnectionError"):
        run(engine_of(stub, retries=0), [Job(row, CROPS)])


def test_a_picture_that_is_gone_ends_its_rollout_alone(row, tmp_path):
    gone = dataclasses.replace(row, id="gone", image=tmp_path / "gone.png")
    with stub_server() as stub:
        first, second = run(engine_of(stub), [Job(gone, CROPS), Job(row, CROPS)])
    assert isinstance(first, OSError)
    assert isinstance(second, Rollout)


# --- the key -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["LFPC_ENDPOINT_KEY", "OPENAI_API_KEY"])
def test_the_key_goes_to_the_server_and_nowhere_else(name, row, monkeypatch, caplog, capfd):
    monkeypatch.delenv("LFPC_ENDPOINT_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-other")
    monkeypatch.setenv(name, "sk-secret-of-this-test")
    caplog.set_level(logging.DEBUG)
    with stub_server() as stub:
        engine = engine_of(stub)
        [rollout] = run(engine, [Job(row, CROPS)])
        seen = {headers["authorization"] for headers in stub.headers}
    with stub_server(faults=["401"] * 9) as stub, pytest.raises(UserError) as raised:
        run(engine_of(stub), [Job(row, CROPS)])
    assert seen == {"Bearer sk-secret-of-this-test"}
    told = [
        str(raised.value),
        caplog.text,
        *capfd.readouterr(),
        repr(rollout),
        repr(engine.endpoint.settings),
    ]
    assert not any("sk-secret-of-this-test" in each for each in told)
    assert "Incorrect API key provided: Bearer ..." in told[0]


def test_without_a_key_a_server_is_asked_all_the_same(row, monkeypatch):
    for name in ("LFPC_ENDPOINT_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with stub_server() as stub:
        assert isinstance(run(engine_of(stub), [Job(row, CROPS)])[0], Rollout)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        ("https://host/api/v1/", "https://host/api/v1"),
    ],
)
def test_a_bare_host_gets_the_usual_path(url, expected):
    assert check_url(url) == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000", "--endpoint must be an address such as"),
        ("ftp://host/v1", "--endpoint must be an address such as"),
        ("https://me:secret@host/v1", "--endpoint must hold no password and no key: set LFPC_ENDPOINT_KEY"),
        ("https://host/v1?key=secret", "--endpoint must hold no password and no key: set LFPC_ENDPOINT_KEY"),
    ],
)
def test_another_address_is_refused_without_its_secrets(url, message):
    with pytest.raises(UserError, match=message) as raised:
        check_url(url)
    assert "secret" not in str(raised.value)


# --- does it read what we send? ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def processor(one_model_dir):
    return load_processor(one_model_dir)


def honest(processor):
    """The tokens of a request, by the model's own processor."""

    def count(body):
        found = iter(pictures(body))
        messages = []
        for message in body["messages"]:
            content = message["content"]
            if isinstance(content, list):
                content = [
                    {"type": "image", "image": next(found)} if block["type"] == "image_url" else block
                    for block in content
                ]
            messages.append(message | {"content": content})
        return prompt_tokens(processor, messages, body.get("tools"))

    return count


def test_a_server_that_reads_what_we_send_says_so_once(processor, row, capsys):
    with stub_server() as stub:
        stub.tokens = honest(processor)
        engine = engine_of(stub)
        engine.processor, engine.compared = processor, False
        run(engine, [Job(dataclasses.replace(row, id=str(index)), CROPS) for index in range(3)])
        counted = stub.tokens(stub.bodies[0])
    [line] = capsys.readouterr().err.splitlines()
    expected = (
        f"the server counts {counted} tokens in the prompt, the model's processor {counted}, 12 of them"
    )
    assert expected in line
    assert "warning" not in line


def test_a_server_that_resizes_pictures_is_told_of_once_with_the_numbers(processor, row, capsys):
    with stub_server() as stub:
        truth = honest(processor)
        stub.tokens = lambda body: truth(body) - 8
        engine = engine_of(stub)
        engine.processor, engine.compared = processor, False
        run(engine, [Job(dataclasses.replace(row, id=str(index)), CROPS) for index in range(3)])
        counted = truth(stub.bodies[0])
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert (
        f"the server counts {counted - 8} tokens in the prompt, the model's processor {counted}, 12 of them"
        in line
    )
    assert "the server resizes pictures" in line


@pytest.mark.parametrize(
    ("budget", "resizes", "said"),
    [
        (
            (28 * 8, 28 * 6),
            False,
            "at 12 visual tokens instead of 48: the difference is the 36 that",
        ),
        (
            (28 * 4, 28 * 3),
            False,
            "at 48 visual tokens instead of 12: the difference is the 36 that",
        ),
        (
            (28 * 8, 28 * 6),
            True,
            "the difference is 12, not 36; the server resizes pictures, or --token-side",
        ),
    ],
)
def test_without_the_processor_two_sizes_are_compared_once(processor, row, capsys, budget, resizes, said):
    """A server whose largest picture has 24 tokens shows it by the increase."""
    with stub_server() as stub:
        truth = honest(processor)

        def limited(body):
            shown = sum(image.width * image.height // 28**2 for image in pictures(body))
            return truth(body) - (max(0, shown - 24) if resizes else 0)

        stub.tokens = limited
        engine = engine_of(stub)
        jobs = [Job(dataclasses.replace(row.shown_at((budget,)), id=str(index)), CROPS) for index in range(3)]
        run(engine, jobs)
        assert len(stub.counted) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert line.startswith("warning: ") == resizes


def test_a_server_that_tells_no_counts_is_told_of_once(row, capsys):
    with stub_server() as stub:
        stub.tokens = lambda _: None
        run(engine_of(stub), [Job(dataclasses.replace(row, id=str(index)), CROPS) for index in range(3)])
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert line.endswith("the server tells no count of tokens; whether it resizes pictures is not known")


def test_pictures_travel_as_png():
    image = Image.effect_noise((28, 56), 60).convert("RGB")
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(image)}}]}
    [back] = pictures({"messages": [message]})
    assert back.tobytes() == image.tobytes()
