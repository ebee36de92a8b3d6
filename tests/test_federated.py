"""The codec between a server and clients that come and go."""

import pytest
import torch
from torch import Tensor, nn

from deadreckon.codec import CodecConfig, ConfigError, OutOfStepError, PacketError, StateError
from deadreckon.codec.federated import (
    Averaging,
    ClientLink,
    ControlVariates,
    DirectionFit,
    Downlink,
    GeneralisedHeavyBall,
    HeavyBall,
    ServerLinks,
    ServerStep,
    Update,
)
from deadreckon.forecast import layout_of

LAYOUT = layout_of(nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 5)))
SIZE = LAYOUT.size


def noise(seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


def play_round(server: ServerLinks, clients: dict[str, ClientLink], weights: Tensor, seed: int = 0) -> list[Tensor]:
    """Publish, let all clients move at random, and give what the server decodes."""
    server.publish(weights)
    found = []
    for number, (name, client) in enumerate(clients.items()):
        start = client.receive(server.message(name))
        assert torch.equal(start, server.weights)
        found.append(server.receive(name, client.send(start - noise(100 * seed + number, 0.1))))
        assert torch.equal(found[-1], client.sent)
    return found


def test_server_and_clients_hold_equal_weights_and_updates():
    """Over rounds, every client has the server's weights bit for bit, and the server what the client says it sent."""
    server, clients = ServerLinks(LAYOUT), {name: ClientLink(LAYOUT) for name in "ab"}
    weights = noise(1)
    for seed in range(5):
        found = play_round(server, clients, weights, seed)
        weights = weights - sum(found) / len(found)
    # Whole once for each client, and then packets of less than a byte a coordinate.
    assert 2 * 4 * SIZE < server.sent_bytes < 2 * 4 * SIZE + 4 * 2 * SIZE
    assert 0 < server.received_bytes < 5 * 2 * SIZE


def test_clients_lag_behind_the_server_by_the_last_packets_error():
    """Clients' weights differ from what was published by the configured share of the last difference, not more."""
    server = ServerLinks(LAYOUT, down=CodecConfig("none", nmse=0.1))
    weights = noise(1)
    server.publish(weights)
    for seed in range(2, 12):
        before = server.weights
        weights = weights + noise(seed, 0.1)
        server.publish(weights)
        difference = float((weights - before).square().sum())
        assert 0 < float((weights - server.weights).square().sum()) <= 0.1 * difference * (1 + 1e-5)


def test_what_is_owed_arrives_in_the_end():
    """With error feedback the sum of what the server decodes approaches the sum of what a client meant."""
    server, client = ServerLinks(LAYOUT), ClientLink(LAYOUT)
    server.publish(noise(1))
    meant, got = torch.zeros(SIZE), torch.zeros(SIZE)
    for seed in range(8):
        start = client.receive(server.message("a"))
        vector = noise(seed, 0.1)
        meant += vector
        got += server.receive("a", client.send(start - vector))
    one = float(noise(0, 0.1).square().sum())
    assert float((meant - got).square().sum()) < 0.3 * one  # of eight


def test_a_client_that_missed_some_versions_catches_up():
    """A client gets the packets that it lacks while they are kept, else the weights whole, and has them bit for bit."""
    server = ServerLinks(LAYOUT, keep=3)
    clients = {name: ClientLink(LAYOUT) for name in "ab"}
    play_round(server, clients, noise(1))
    for version in range(1, 6):
        play_round(server, {"a": clients["a"]}, noise(1) + 0.1 * version, version)
        if version == 3:
            message = server.message("b")
            assert (len(message.packets), message.whole) == (3, None)
            assert torch.equal(clients["b"].receive(message), server.weights)
            server.confirm("b", message.version)
    server.publish(noise(2))
    server.publish(noise(3))
    message = server.message("b")
    assert message.whole is not None
    assert message.packets == ()
    assert torch.equal(clients["b"].receive(message), server.weights)


def test_who_has_not_answered_counts_as_having_nothing():
    """After a message without an answer the weights are sent whole again; after a confirmation nothing is sent."""
    server, client = ServerLinks(LAYOUT), ClientLink(LAYOUT)
    server.publish(noise(1))
    client.receive(server.message("a"))
    assert server.message("a").whole is not None
    server.confirm("a", 0)
    message = server.message("a")
    assert message.num_bytes == 0
    assert torch.equal(client.receive(message), noise(1))
    assert server.message("a").whole is not None  # the last one was not confirmed


def test_a_lost_update_makes_the_next_one_a_key_frame():
    """The server decodes what follows an update that it never got, and the client learns that from the message."""
    server, clients = ServerLinks(LAYOUT), {"a": ClientLink(LAYOUT)}
    client = clients["a"]
    play_round(server, clients, noise(1))
    client.send(client.receive(server.message("a")) - noise(5, 0.1))  # lost
    play_round(server, clients, noise(2), 2)
    play_round(server, clients, noise(3), 3)


def test_an_update_of_an_old_version_is_refused():
    """Whoever trained from weights that are no longer the last ones is told so, and can go on afterwards."""
    server, clients = ServerLinks(LAYOUT), {"a": ClientLink(LAYOUT)}
    play_round(server, clients, noise(1))
    late = clients["a"].send(noise(2))
    server.publish(noise(3))
    with pytest.raises(OutOfStepError, match="version 0 of the weights, version 1 is out"):
        server.receive("a", late)
    play_round(server, clients, noise(4), 4)


def test_packets_that_do_not_fit_a_client_are_refused():
    """A new client refuses packets, and an old one those that leave a gap; neither changes."""
    server, clients = ServerLinks(LAYOUT), {"a": ClientLink(LAYOUT)}
    play_round(server, clients, noise(1))
    server.publish(noise(2))
    message = server.message("a")
    server.publish(noise(3))
    for client in (ClientLink(LAYOUT), clients["a"]):
        before = client.weights.clone()
        with pytest.raises(OutOfStepError, match="Have the weights sent whole"):
            client.receive(message._replace(version=2, whole=None, packets=message.packets[-1:]))
        assert torch.equal(client.weights, before)
    with pytest.raises(PacketError, match="Whole weights must have"):
        clients["a"].receive(Downlink(0, (), torch.zeros(3), -1))
    with pytest.raises(OutOfStepError, match="has no weights yet"):
        ClientLink(LAYOUT).send(noise(1))


def test_a_damaged_update_is_refused():
    """Damaged packets and coefficients raise; the next round goes on."""
    server, clients = ServerLinks(LAYOUT), {"a": ClientLink(LAYOUT)}
    play_round(server, clients, noise(1))
    server.message("a")
    update = clients["a"].send(noise(2))
    with pytest.raises(PacketError):
        server.receive("a", update._replace(packet=update.packet[:-1] + b"x"))
    with pytest.raises(PacketError, match="step of the server that there was not"):
        server.receive("a", Update(0, update.packet, b"\xff"))
    play_round(server, clients, noise(3), 1)


def test_a_client_goes_on_from_its_saved_state():
    """A link that was saved and loaded sends the bytes that the one that went on sends."""
    server, clients = ServerLinks(LAYOUT), {"a": ClientLink(LAYOUT)}
    for seed in range(3):
        play_round(server, clients, noise(seed), seed)
    server.publish(noise(7))
    message, other = server.message("a"), ClientLink(LAYOUT)
    other.load_state_dict(clients["a"].state_dict())
    assert torch.equal(other.receive(message), clients["a"].receive(message))
    assert other.send(noise(8)) == clients["a"].send(noise(8))
    saved = other.state_dict()
    with pytest.raises(StateError, match="damaged"):
        other.load_state_dict({"weights": saved["weights"]})
    with pytest.raises(StateError, match="`weights` of a client's state"):
        other.load_state_dict(saved | {"weights": torch.zeros(2)})
    with pytest.raises(StateError, match="`numbers` of a client's state"):
        other.load_state_dict(saved | {"numbers": torch.zeros(2)})


def test_the_servers_last_step_predicts_a_client_that_goes_on_in_it():
    """The update of a client that moves as the server did has a tenth of the error of one that moves at random."""
    errors, forgetful = {}, CodecConfig("none", nmse=0.1)
    for follows in (True, False):
        server, clients = ServerLinks(LAYOUT, forgetful), {"a": ClientLink(LAYOUT, forgetful)}
        play_round(server, clients, torch.zeros(SIZE))
        server.publish(noise(3, 0.1))
        start = clients["a"].receive(server.message("a"))
        vector = noise(3 if follows else 4, 0.05) + noise(5, 0.001)
        update = clients["a"].send(start - vector)
        assert update.coefficients or not follows
        decoded = server.receive("a", update)
        torch.testing.assert_close(decoded, clients["a"].sent, rtol=0, atol=0)
        errors[follows] = float((decoded - vector).square().sum())
    assert errors[True] < 0.1 * errors[False]


def test_the_direction_is_fitted_by_least_squares():
    """Coefficients are within half a unit of least squares for each tensor, and survive their bytes."""
    fit = DirectionFit(LAYOUT)
    direction, vector = noise(1), noise(2)
    for number, spec in enumerate(LAYOUT):
        vector[spec.span] += number * direction[spec.span]
    fitted = fit.fit(vector, direction)
    for (unit,), spec in zip(fitted.tolist(), LAYOUT, strict=True):
        mine, known = vector[spec.span], direction[spec.span]
        if unit:
            assert abs(unit / 256 - float(mine @ known / (known @ known))) <= 0.5 / 256 + 1e-6
    assert (fit.from_bytes(fit.to_bytes(fitted)) == fitted).all()
    with pytest.raises(PacketError, match="more behind"):
        fit.from_bytes(fit.to_bytes(fitted) + b"\0")


def test_what_cannot_be_published_or_configured_is_refused():
    """Weights that are not finite, feedback on the way down, a negative `keep`, early messages: each by name."""
    server = ServerLinks(LAYOUT)
    with pytest.raises(OutOfStepError, match="Nothing was published"):
        server.message("a")
    with pytest.raises(ConfigError, match="finite numbers"):
        server.publish(torch.full((SIZE,), torch.nan))
    with pytest.raises(ConfigError, match="leave `feedback` of the way down off"):
        ServerLinks(LAYOUT, down=CodecConfig(feedback="classic"))
    with pytest.raises(ConfigError, match="`keep`"):
        ServerLinks(LAYOUT, keep=-1)
    server.publish(noise(1))
    server.forget("nobody")


@pytest.mark.parametrize(
    ("step", "factor"),
    [(Averaging(0.5), 0.5), (HeavyBall(0.1, 0.9), 1.0), (GeneralisedHeavyBall(0.5, 0.9, 0.7), 0.5)],
)
def test_on_a_constant_gradient_the_step_approaches_its_gain(step: ServerStep, factor: float):
    """The step on a constant mean tends to rate times the mean, over 1 - beta for the plain heavy ball."""
    mean = noise(1)
    state, update = step.initial(mean), torch.zeros(SIZE)
    for _ in range(200):
        state, update = step.advanced(state, mean)
    torch.testing.assert_close(update, factor * mean, rtol=1e-4, atol=1e-6)


def test_the_generalised_heavy_ball_contains_both_others():
    """With share 0 it averages; with share 1 it is the heavy ball at 1 / (1 - beta) of its rate."""
    for share, other in ((0.0, Averaging(0.5)), (1.0, HeavyBall(0.05, 0.9))):
        general = GeneralisedHeavyBall(0.5, 0.9, share)
        states = [general.initial(noise(0)), other.initial(noise(0))]
        for seed in range(4):
            states[0], first = general.advanced(states[0], noise(seed))
            states[1], second = other.advanced(states[1], noise(seed))
            torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


def test_numbers_of_steps_are_checked():
    """Rates, momenta, shares and counts out of range are refused by name."""
    for make, match in (
        (lambda: Averaging(0.0), "learning_rate"),
        (lambda: HeavyBall(1.0, 1.0), "`momentum`"),
        (lambda: GeneralisedHeavyBall(1.0, 0.9, 1.5), "`share`"),
        (lambda: GeneralisedHeavyBall(1.0, -0.1), "`momentum`"),
        (lambda: ControlVariates(3, 0), "num_clients"),
        (lambda: ControlVariates.change(noise(0), noise(0), 0, 0.1), "above 0"),
    ):
        with pytest.raises(ConfigError, match=match):
            make()


def test_control_variates_cancel_what_clients_do_not_share():
    """On quadratics with a minimum for each client SCAFFOLD reaches the common one, where averaging stays away."""
    minima, curvature, rate, steps = [noise(1), noise(2)], [0.2, 1.5], 0.3, 10
    common = (curvature[0] * minima[0] + curvature[1] * minima[1]) / sum(curvature)
    errors = {}
    for corrected in (True, False):
        weights, control = torch.zeros(SIZE), ControlVariates(SIZE, 2)
        own = [torch.zeros(SIZE), torch.zeros(SIZE)]
        for _ in range(300):
            vectors, changes = [], []
            for number in range(2):
                local = weights.clone()
                for _ in range(steps):
                    correction = control.mean - own[number] if corrected else 0
                    local = local - rate * (curvature[number] * (local - minima[number]) + correction)
                vectors.append(weights - local)
                changes.append(ControlVariates.change(control.mean, vectors[-1], steps, rate))
                own[number] = own[number] + changes[-1]
            weights = weights - sum(vectors) / 2
            control.update(changes)
        errors[corrected] = float((weights - common).square().sum() / common.square().sum())
    assert errors[True] < 1e-3
    assert errors[False] > 1e-2
