"""A cooperator that counts what it runs."""

from otpmail.cooperate import Cooperator, Steps, T


class CountingCooperator(Cooperator):
    """Counts the pieces of work that it runs, and their steps."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    async def run(self, steps: Steps[T]) -> T:
        """Run the steps, and count them."""
        self.steps.append(0)

        def counted() -> Steps[T]:
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    result: T = end.value
                    return result
                self.steps[-1] += 1
                yield

        return await super().run(counted())
