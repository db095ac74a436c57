"""Small spaces with known rewards."""

from studies.search.rewards import Outcome
from studies.search.spaces import Decision, Space


class ToySpace(Space):
    """Decisions of given sizes; those of one size are of one kind."""

    def __init__(self, *sizes):
        super().__init__("a toy", "nothing", [Decision(f"one of {size}", size) for size in sizes])

    def arguments(self, choices):
        return {"choices": list(choices)}

    def describe(self, choices):
        return {str(index): str(choice) for index, choice in enumerate(choices)}


class ToyReward:
    """The share of decisions that are 1; remembers what was asked."""

    def __init__(self):
        self.batches = []

    def evaluate(self, architectures):
        self.batches.append(list(architectures))
        shares = [sum(choice == 1 for choice in choices) / len(choices) for choices in architectures]
        return [Outcome(share, share / 2) for share in shares]
