import onnxruntime
import pytest
import torch

from nnpm.training.adaptation.publish import replace_head
from nnpm.training.bundle.files import head_graph
from nnpm.training.network.head import Head
from nnpm.training.network.network import Network
from tests.support.tiny_network import WIDTH, tiny_network


@pytest.fixture(scope="module")
def network() -> Network:
    return tiny_network()


@pytest.fixture(scope="module")
def graph(network: Network) -> bytes:
    return head_graph(network)


def other(network: Network, *, but: tuple[str, ...] = ()) -> Head:
    """A head whose adaptable numbers are all different, but for some."""
    generator = torch.Generator().manual_seed(1)
    head = Head(network.config.head, network.head.projection.blocks, 4).eval()
    state = network.head.state_dict()
    for name in ("norm.running_mean", "norm.running_var", "projection.weight", "projection.bias",
                 "classes"):  # fmt: skip
        if name not in but:
            state[name] = state[name] + torch.rand(state[name].shape, generator=generator)
    head.load_state_dict(state)
    return head


@torch.no_grad()
def says(graph: bytes, head: Head) -> None:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    embedding = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(2))
    found = session.run(["logits", "projection"], {"embedding": embedding.numpy()})
    for name, ours, theirs in zip(("logits", "projection"), found, head(embedding), strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), theirs, msg=name, atol=1e-4, rtol=1e-4)


def test_the_graph_says_what_the_new_head_says(network, graph) -> None:
    head = other(network)
    replaced = replace_head(graph, network.head, head)
    assert replaced is not None
    says(replaced, head)
    says(graph, network.head)


def test_it_can_be_replaced_again(network, graph) -> None:
    first, second = other(network, but=("classes",)), other(network)
    once = replace_head(graph, network.head, first)
    assert once is not None
    twice = replace_head(once, first, second)
    assert twice is not None
    says(twice, second)


def test_a_graph_of_another_head_is_not_touched(network, graph) -> None:
    head = other(network)
    assert replace_head(graph, head, other(network, but=("classes",))) is None
