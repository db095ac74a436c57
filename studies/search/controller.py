"""The controller: an LSTM that predicts an architecture decision by decision.

Zoph et al., arXiv 1707.07012, section 3 and appendix A.1, after Zoph and Le, arXiv 1611.01578, section 3.1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from errors import check_at_least
from studies.search.spaces import Space

INIT_RANGE = 0.1  # weights are drawn uniformly between -0.1 and 0.1


class Controller(nn.Module):
    """One layer of an LSTM. Its input is the embedding of the previous decision, its output one softmax over the next.

    Decisions of one kind share their softmax and their embedding; what the LSTM remembers tells them apart.

    Args:
        space: of the architectures.
        hidden_size: units of the LSTM; the paper has 100.
        generator: for the initial weights.
    """

    def __init__(self, space: Space, hidden_size: int, generator: torch.Generator) -> None:
        super().__init__()
        check_at_least(1, hidden_size=hidden_size)
        self.decisions = space.decisions
        sizes = {decision.kind: decision.size for decision in self.decisions}
        self.kinds = list(sizes)  # names of modules may hold no dots or spaces, so they are numbered
        self.start = nn.Parameter(torch.empty(hidden_size))  # in place of the first decision's predecessor
        self.lstm = nn.LSTMCell(hidden_size, hidden_size)
        self.embeddings = nn.ModuleList(nn.Embedding(size, hidden_size) for size in sizes.values())
        self.heads = nn.ModuleList(nn.Linear(hidden_size, size) for size in sizes.values())
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -INIT_RANGE, INIT_RANGE, generator=generator)

    @torch.no_grad()
    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Architectures drawn from the controller's distribution: [number, decisions] int64."""
        return self._unroll(number, None, generator)[0]

    def forward(self, choices: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy of architectures.

        Args:
            choices: [B, decisions] int64.

        Returns:
            [B] log-probability of each architecture, and [B] the sum of the entropies of the softmaxes on its way.
        """
        return self._unroll(len(choices), choices, None)[1:]

    def _unroll(
        self, number: int, given: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Choices (drawn where none are given), log-probabilities and entropies."""
        inputs, state, taken = self.start.expand(number, -1), None, []
        log_prob, entropy = torch.zeros(number), torch.zeros(number)
        for step, decision in enumerate(self.decisions):
            kind = self.kinds.index(decision.kind)
            state = self.lstm(inputs, state)
            log_probs = self.heads[kind](state[0]).log_softmax(dim=1)  # [B, choices]
            probs = log_probs.exp()
            choice = torch.multinomial(probs, 1, generator=generator)[:, 0] if given is None else given[:, step]
            log_prob = log_prob + log_probs.gather(1, choice[:, None])[:, 0]
            entropy = entropy - (probs * log_probs).sum(dim=1)
            inputs = self.embeddings[kind](choice)
            taken.append(choice)
        return torch.stack(taken, dim=1), log_prob, entropy


def as_tensor(choices: Sequence[Sequence[int]]) -> Tensor:
    """Architectures as [B, decisions] int64."""
    return torch.tensor([list(each) for each in choices], dtype=torch.int64)
