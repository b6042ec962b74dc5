import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from nnpm.training.network.memory import ExternalMemory


def memory(momentum: float = 0.5) -> ExternalMemory:
    memory = ExternalMemory(torch.tensor([0, 0, 1]), width=4, momentum=momentum)
    memory.fill(torch.eye(3, 4) * 7)
    return memory


def test_fill_stores_unit_features() -> None:
    torch.testing.assert_close(memory().slots, torch.eye(3, 4))


def test_update_is_the_papers_rule_and_touches_no_other_slot() -> None:
    bank, z = memory(0.8), F.normalize(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), dim=1)
    bank.update(torch.tensor([1]), z)
    expected = F.normalize(0.8 * torch.eye(3, 4)[1] + 0.2 * z[0], dim=0)
    torch.testing.assert_close(bank.slots[1], expected)
    torch.testing.assert_close(bank.slots[[0, 2]], torch.eye(3, 4)[[0, 2]])


def test_an_utterance_drawn_twice_has_no_order() -> None:
    z = F.normalize(torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 0]]), dim=1)
    forward, backward = memory(), memory()
    forward.update(torch.tensor([2, 2]), z)
    backward.update(torch.tensor([2, 2]), z.flip(0))
    torch.testing.assert_close(forward.slots, backward.slots)


def test_momentum_bounds() -> None:
    z = F.normalize(torch.ones(1, 4), dim=1)
    frozen, replaced = memory(1.0), memory(0.0)
    frozen.update(torch.tensor([0]), z)
    replaced.update(torch.tensor([0]), z)
    torch.testing.assert_close(frozen.slots[0], torch.eye(4)[0])
    torch.testing.assert_close(replaced.slots[0], z[0])


def test_updates_carry_no_gradient() -> None:
    bank, z = memory(), torch.ones(1, 4, requires_grad=True)
    bank.update(torch.tensor([0]), z)
    assert not bank.slots.requires_grad
