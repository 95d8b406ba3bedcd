"""Makes the methods of both clients from functions that return a plan: a call is described once."""

import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from otpmail.client.plan import Plan, built

P = ParamSpec("P")
ResultT = TypeVar("ResultT")


class Runs(Protocol):
    """A client whose calls are awaited."""

    async def run(self, plan: Plan[ResultT]) -> ResultT:
        """Make a call."""


class RunsNow(Protocol):
    """A client whose calls block."""

    def run(self, plan: Plan[ResultT]) -> ResultT:
        """Make a call."""


def awaited(build: Callable[P, Plan[ResultT]]) -> Callable[Concatenate[Runs, P], Coroutine[Any, Any, ResultT]]:
    """Return the method of a client that makes this call and is awaited."""

    @wraps(build)
    async def method(self: Runs, /, *args: P.args, **options: P.kwargs) -> ResultT:
        """Make the call."""
        return await self.run(built(build, *args, **options))

    return _described(method, build)


def blocking(build: Callable[P, Plan[ResultT]]) -> Callable[Concatenate[RunsNow, P], ResultT]:
    """Return the method of a client that makes this call and blocks."""

    @wraps(build)
    def method(self: RunsNow, /, *args: P.args, **options: P.kwargs) -> ResultT:
        """Make the call."""
        return self.run(built(build, *args, **options))

    return _described(method, build)


MethodT = TypeVar("MethodT", bound=Callable[..., Any])


def _described(method: MethodT, build: Callable[..., Plan[Any]]) -> MethodT:
    """Give a method the signature that `help` shows, with the client before the arguments."""
    signature = inspect.signature(build)
    client = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    parameters = [client, *signature.parameters.values()]
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=parameters, return_annotation=_result_of(signature.return_annotation)
    )
    return method


def _result_of(annotation: Any) -> Any:
    """Return X of Plan[X]."""
    return annotation.__args__[0]
