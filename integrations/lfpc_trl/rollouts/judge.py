"""A judge for answers that the rules cannot decide: the user's function, called concurrently.

The rules of the accuracy reward decide most answers. What they leave open, other words than the accepted
ones, counts as wrong without a judge. With one, each case is asked once, with limited concurrency, and
recorded verdicts are reused.

A judge that does not know, or fails now and then, says nothing about the model: such a rollout has no reward
(NaN). One that has never answered is broken, and ends the run.
"""

import asyncio
import inspect
import math
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar, cast

from lfpc_rewards import ParsedCompletion, judged_accuracy_reward
from lfpc_trl.data.rows import Row
from lfpc_trl.errors import UserError, one_line
from lfpc_trl.own_code import OwnCode
from lfpc_trl.rollouts.prompts import question_text

CONCURRENCY = 16
"""Concurrent cases. Our choice: about what vendors allow a new account."""
_WORDS: dict[Any, str] = {
    True: "yes",
    False: "no",
    None: "unknown",
    "yes": "yes",
    "no": "no",
    "unknown": "unknown",
}
VERDICTS = ("yes", "no", "unknown")
"""What a judge can answer. The rules count all its cases as wrong, so each "yes" disagrees with them."""
_Result = TypeVar("_Result")


class Case(NamedTuple):
    """One question to the judge.

    Attributes:
        question: the question with its options.
        answer: the model's answer.
        accepted: the accepted answers.
    """

    question: str
    answer: str
    accepted: tuple[str, ...]


class Verdict(NamedTuple):
    """The judge's answer to a case.

    Attributes:
        said: "yes", "no" or "unknown".
        cost: of the call, in the judge's own unit; 0 if it reports none, or if the verdict was reused.
    """

    said: str
    cost: float = 0.0


class Judge:
    """Calls the user's function, which may be asynchronous.

    It is called with a question, an answer and the list of accepted answers, and returns "yes", "no",
    "unknown", True, False or None; or a dictionary with such a `verdict` and its `cost`.

    Args:
        code: the function.
        concurrency: concurrent cases.
        known: recorded verdicts to reuse.
        remember: called with each newly decided case and its verdict.
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
        self._slots = asyncio.Semaphore(concurrency)
        # One event loop for all calls: API clients keep connections, which belong to a loop.
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="judge", daemon=True).start()

    def accuracy(
        self, rollouts: Sequence[ParsedCompletion], rows: Sequence[Row]
    ) -> tuple[list[float], list[Verdict | None]]:
        """The accuracy of rollouts, with the judge's verdicts.

        Returns:
            1 right, 0 wrong, NaN where the judge does not know; and a verdict for each rollout that the rules
            left open, None for the others.

        Raises:
            UserError: the judge returned something other than a verdict, or has never answered.
        """
        judged: dict[Case, Verdict] = {}

        async def ask(question: str | None, answer: str, accepted: list[str]) -> str:
            case = Case(question or "", answer, tuple(accepted))
            judged[case] = await self._verdict(case)
            return judged[case].said

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
        # Rollouts that the rules decided have no verdict.
        verdicts = [
            judged.get(Case(question, rollout.answer or "", row.answer))
            for question, rollout, row in zip(questions, rollouts, rows, strict=True)
        ]
        return scores.tolist(), self._charge_once(verdicts)

    def replies(
        self, questions: Sequence[str], answers: Sequence[str], golds: Sequence[Any]
    ) -> list[bool | None]:
        """Judge a batch for a preset: True or False for each answer, None where the judge does not know."""
        cases = [
            Case(question, answer, (gold,) if isinstance(gold, str) else tuple(gold))
            for question, answer, gold in zip(questions, answers, golds, strict=True)
        ]

        async def ask_all() -> dict[Case, Verdict]:
            distinct = dict.fromkeys(cases)
            return dict(zip(distinct, await asyncio.gather(*map(self._verdict, distinct)), strict=True))

        judged = self._run(ask_all())
        return [{"yes": True, "no": False}.get(judged[case].said) for case in cases]

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        result = asyncio.run_coroutine_threadsafe(work, self._loop).result()
        if self._failure is not None and not self._answered:
            raise self._failure
        return result

    @staticmethod
    def _charge_once(verdicts: Sequence[Verdict | None]) -> list[Verdict | None]:
        """Keep the cost of a verdict shared by several rollouts only at the first of them."""
        seen: set[int] = set()
        charged = []
        for verdict in verdicts:
            repeated = verdict is not None and id(verdict) in seen
            seen.add(id(verdict))
            charged.append(verdict._replace(cost=0.0) if verdict is not None and repeated else verdict)
        return charged

    async def _verdict(self, case: Case) -> Verdict:
        if case in self._known:
            return self._known[case]._replace(cost=0.0)
        async with self._slots:
            try:
                reply = await self._call(case)
            except Exception as error:  # the user's code, and the network behind it
                accepted = " or ".join(map(repr, case.accepted))
                self._failure = UserError(
                    f"judge {self._code.name}: failed and has never answered; asked whether "
                    f"{case.answer!r} is {accepted} ({type(error).__name__}: {one_line(error)})"
                )
                return Verdict("unknown")
        verdict = self._read(reply, case)
        self._answered = True
        if verdict.said != "unknown":
            self._known[case] = verdict
            self._remember(case, verdict)
        return verdict

    async def _call(self, case: Case) -> Any:
        arguments = case.question, case.answer, list(case.accepted)
        if inspect.iscoroutinefunction(self._code.function):
            return await self._code.function(*arguments)
        reply = await self._loop.run_in_executor(self._threads, self._code.function, *arguments)
        return await reply if inspect.isawaitable(reply) else reply

    def _read(self, reply: Any, case: Case) -> Verdict:
        fields = reply if isinstance(reply, dict) else {"verdict": reply}
        verdict, cost = fields.get("verdict"), fields.get("cost", 0.0)
        # 1 == True as a key of _WORDS, but a judge that returns numbers is an error.
        wrong = isinstance(verdict, int | float) and not isinstance(verdict, bool)
        try:
            wrong = wrong or verdict not in _WORDS
        except TypeError:  # unhashable, such as a list
            wrong = True
        if wrong or isinstance(cost, bool) or not isinstance(cost, int | float) or not math.isfinite(cost):
            raise UserError(
                f'judge {self._code.name}: must return "yes", "no" or "unknown", or a dictionary with such a '
                f"verdict and a cost, got {reply!r} for {case.answer!r}"
            )
        return Verdict(_WORDS[verdict], float(cost))
