"""A judge for the answers on which the rules do not decide: a function of the user's, asked many at a time.

The rules of the accuracy reward decide most answers. What they leave open, words that are not the accepted
words, counts as wrong without a judge. With one it is asked: the same case once, no more than so many at a
time, and never again what is written down.

A judge that does not know, or fails now and then, says nothing about the model: such a rollout has no reward
at all (NaN). One that has never answered is broken, and ends the run.
"""

import asyncio
import inspect
import math
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar, cast

from lfpc_rewards import Rollout, judged_accuracy_reward
from lfpc_trl.data.rows import Row
from lfpc_trl.errors import UserError, one_line
from lfpc_trl.own_code import OwnCode
from lfpc_trl.rollouts.prompts import question_text

CONCURRENCY = 16
"""Cases at a time. Our choice: what vendors let a new customer do."""
_WORDS: dict[Any, str] = {
    True: "yes",
    False: "no",
    None: "unknown",
    "yes": "yes",
    "no": "no",
    "unknown": "unknown",
}
VERDICTS = ("yes", "no", "unknown")
"""What a judge can say. The rules alone count all three as wrong: each "yes" disagrees with them."""
_Result = TypeVar("_Result")


class Case(NamedTuple):
    """What a judge is asked.

    Attributes:
        question: the question with its options.
        answer: the model's answer.
        accepted: the accepted answers.
    """

    question: str
    answer: str
    accepted: tuple[str, ...]


class Verdict(NamedTuple):
    """What a judge said.

    Attributes:
        said: "yes", "no" or "unknown".
        cost: of asking, in the judge's own unit; 0 where it tells none, and where it was not asked again.
    """

    said: str
    cost: float = 0.0


class Judge:
    """Asks the user's function, which may be asynchronous.

    It is called with a question, an answer and the list of accepted answers, and returns "yes", "no",
    "unknown", True, False or None; or a dictionary with such a `verdict` and its `cost`.

    Args:
        code: the function.
        concurrency: cases at a time.
        known: what was said before.
        remember: is told each new case that was decided, with its verdict.
    """

    def __init__(
        self,
        code: OwnCode,
        *,
        concurrency: int = CONCURRENCY,
        known: Mapping[Case, Verdict] | None = None,
        remember: Callable[[Case, Verdict], object] = lambda case, verdict: None,  # noqa: ARG005
    ) -> None:
        self._code, self._remember = code, remember
        self._known = dict(known or {})
        self._answered = bool(self._known)
        self._failure: UserError | None = None
        self._threads = ThreadPoolExecutor(concurrency, "judge")
        self._room = asyncio.Semaphore(concurrency)
        # One loop for all calls: clients of servers keep connections, which belong to a loop.
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="judge", daemon=True).start()

    def accuracy(
        self, rollouts: Sequence[Rollout], rows: Sequence[Row]
    ) -> tuple[list[float], list[Verdict | None]]:
        """The accuracy of rollouts, and what the judge said where it decided.

        Returns:
            1 right, 0 wrong, NaN where the judge does not know; and a verdict for each rollout that the rules
            left open.

        Raises:
            UserError: the judge gives something else than a verdict, or has never answered.
        """
        said: dict[Case, Verdict] = {}

        async def ask(question: str | None, answer: str, accepted: list[str]) -> str:
            case = Case(question or "", answer, tuple(accepted))
            said[case] = await self._verdict(case)
            return said[case].said

        questions = [question_text(row) for row in rows]
        scores = self._run(
            judged_accuracy_reward(
                rollouts,
                [row.answer for row in rows],
                [row.choices for row in rows],
                judge=cast("Any", ask),
                questions=questions,
            )
        )
        # A verdict is found again by what was asked; a rollout that the rules decided has none.
        verdicts = [
            said.get(Case(question, rollout.answer or "", row.answer))
            for question, rollout, row in zip(questions, rollouts, rows, strict=True)
        ]
        return scores.tolist(), self._paid_once(verdicts)

    def replies(
        self, questions: Sequence[str], answers: Sequence[str], golds: Sequence[Any]
    ) -> list[bool | None]:
        """As presets ask: True or False for each answer, None where the judge does not know."""
        cases = [
            Case(question, answer, (gold,) if isinstance(gold, str) else tuple(gold))
            for question, answer, gold in zip(questions, answers, golds, strict=True)
        ]

        async def ask_all() -> dict[Case, Verdict]:
            each = dict.fromkeys(cases)
            return dict(zip(each, await asyncio.gather(*map(self._verdict, each)), strict=True))

        said = self._run(ask_all())
        return [{"yes": True, "no": False}.get(said[case].said) for case in cases]

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        result = asyncio.run_coroutine_threadsafe(work, self._loop).result()
        if self._failure is not None and not self._answered:
            raise self._failure
        return result

    @staticmethod
    def _paid_once(verdicts: Sequence[Verdict | None]) -> list[Verdict | None]:
        """A verdict that several rollouts share has its cost at the first of them."""
        seen: set[int] = set()
        shared = []
        for verdict in verdicts:
            again = verdict is not None and id(verdict) in seen
            seen.add(id(verdict))
            shared.append(verdict._replace(cost=0.0) if verdict is not None and again else verdict)
        return shared

    async def _verdict(self, case: Case) -> Verdict:
        if case in self._known:
            return self._known[case]._replace(cost=0.0)
        async with self._room:
            try:
                said = await self._call(case)
            except Exception as error:  # the user's code, and the network behind it
                accepted = " or ".join(map(repr, case.accepted))
                self._failure = UserError(
                    f"judge {self._code.name}: failed and has never answered, asked whether "
                    f"{case.answer!r} is {accepted} ({type(error).__name__}: {one_line(error)})"
                )
                return Verdict("unknown")
        verdict = self._read(said, case)
        self._answered = True
        if verdict.said != "unknown":
            self._known[case] = verdict
            self._remember(case, verdict)
        return verdict

    async def _call(self, case: Case) -> Any:
        words = case.question, case.answer, list(case.accepted)
        if inspect.iscoroutinefunction(self._code.function):
            return await self._code.function(*words)
        said = await self._loop.run_in_executor(self._threads, self._code.function, *words)
        return await said if inspect.isawaitable(said) else said

    def _read(self, said: Any, case: Case) -> Verdict:
        told = said if isinstance(said, dict) else {"verdict": said}
        verdict, cost = told.get("verdict"), told.get("cost", 0.0)
        wrong = isinstance(verdict, int | float) and not isinstance(verdict, bool)  # 1 is no True here
        try:
            wrong = wrong or verdict not in _WORDS
        except TypeError:  # it has no hash, such as a list
            wrong = True
        if wrong or isinstance(cost, bool) or not isinstance(cost, int | float) or not math.isfinite(cost):
            raise UserError(
                f'judge {self._code.name}: must give "yes", "no" or "unknown", or a dictionary with such a '
                f"verdict and a cost, got {said!r} for {case.answer!r}"
            )
        return Verdict(_WORDS[verdict], float(cost))
