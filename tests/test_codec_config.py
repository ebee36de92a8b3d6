"""The codec's configuration: checks, plain data, digests; and its errors."""

import dataclasses
import json
import math

import pytest
import torch

from deadreckon.codec import Codec, CodecConfig, CodecError, ConfigError, OutOfStepError, PacketError
from deadreckon.codec.modes import Annulus
from deadreckon.forecast import Layout, TensorSpec
from deadreckon.models import make_forecaster

BAD_SETTINGS = [
    ({"predictor": "psychic"}, "`predictor` must be one of"),
    ({"predictor": 3}, "must be a name or a Forecaster, got int"),
    ({"predictor": ()}, "must combine 1 to 4 predictions, got 0"),
    ({"predictor": ("previous",) * 5}, "must combine 1 to 4 predictions, got 5"),
    ({"predictor": ("previous", "previous")}, "must not name a prediction twice"),
    ({"predictor": ("previous", "psychic")}, "A combination of predictors may have .* got 'psychic'"),
    ({"predictor": ("previous", "momentum_norm")}, "A combination of predictors may have .* got 'momentum_norm'"),
    ({"lattice": "E7"}, "`lattice` must be one of"),
    ({"entropy": "magic"}, "`entropy` must be one of"),
    ({"nmse": 0.0}, "`nmse` must be at least 0.0 and below 1.0"),
    ({"nmse": 1.0}, "`nmse` must be"),
    ({"nmse": math.nan}, "`nmse` must be a finite number"),
    ({"nmse": True}, "`nmse` must be a finite number"),
    ({"nmse": "0.1"}, "`nmse` must be a finite number"),
    ({"nmse": None}, "`nmse` must be a finite number"),
    ({"momentum": 1.0}, "`momentum` must be"),
    ({"dead_zone": 0.5}, "`dead_zone` must be"),
    ({"dead_zone": -0.1}, "`dead_zone` must be"),
    ({"dead_zone": math.inf}, "`dead_zone` must be a finite number"),
    ({"hold": "breath"}, "`hold` must be one of"),
    ({"hold": "mean_rate"}, "`bits` is for `hold='mean_rate'`, which needs it; got None"),
    ({"bits": 1.0}, "`bits` is for `hold='mean_rate'`"),
    ({"hold": "mean_rate", "bits": 0.0}, "`bits` must be above 0 and at most 32"),
    ({"hold": "mean_rate", "bits": 33.0}, "`bits` must be above 0 and at most 32"),
    ({"hold": "mean_rate", "bits": math.nan}, "`bits` must be above 0 and at most 32"),
    ({"hold": "mean_rate", "bits": True}, "`bits` must be above 0 and at most 32"),
    ({"metric": "imperial"}, "`metric` must be one of"),
    ({"metric_decay": 1.0}, "`metric_decay` must be"),
    ({"rounding": "up"}, "`rounding` must be one of"),
    ({"rounding": "stochastic", "dead_zone": 0.1}, "Stochastic rounding is for lattice Z"),
    ({"rounding": "stochastic", "entropy": "runs"}, "Stochastic rounding is for lattice Z"),
    ({"rounding": "stochastic", "feedback": "classic"}, "Stochastic rounding is for lattice Z"),
    ({"lattice": "E8", "entropy": "runs"}, "`lattice='E8'` needs `entropy='scale_classes'`"),
    ({"lattice": "E8", "rounding": "stochastic"}, "Stochastic rounding is for lattice Z"),
    ({"modes": "annulus"}, "`modes` must be a policy"),
    ({"feedback": "ef21"}, "Error feedback must be one of"),
    ({"feedback": "leaky", "feedback_decay": 0.0}, "`decay` must be above 0"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS)
def test_bad_settings_are_refused(settings, message):
    """Every setting is checked when the configuration is made, and the message says what is allowed."""
    with pytest.raises(ConfigError, match=message):
        CodecConfig(**settings)


CONFIGS = [
    CodecConfig("previous", nmse=0.3, momentum=0.5),
    CodecConfig(("previous", "linear"), dead_zone=0.1, entropy="tensor_tables"),
    CodecConfig(hold="mean_rate", bits=2.0, modes=Annulus(level=2), feedback="leaky", feedback_decay=0.5),
    CodecConfig(hold="mean_error", lattice="raw"),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_configurations_round_trip_as_json(config):
    """`from_dict(to_dict())` is the identity, through JSON too, with the same digest."""
    again = CodecConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.digest == config.digest
    assert CodecConfig.from_dict({}) == CodecConfig()


def test_bad_plain_data_is_refused():
    """Unknown entries, unknown policies and predictors without a name raise."""
    with pytest.raises(ConfigError, match=r"Unknown entries in a codec configuration: \['colour'\]"):
        CodecConfig.from_dict({"colour": 3})
    with pytest.raises(ConfigError, match="A mode policy must be one of"):
        CodecConfig.from_dict({"modes": {"name": "psychic"}})
    for predictor in (make_forecaster("linear"), ("previous", make_forecaster("linear"))):
        with pytest.raises(ConfigError, match="Linear object cannot be written"):
            CodecConfig(predictor).to_dict()


@pytest.mark.parametrize("settings", [{"entropy": "runs"}, {"entropy": "tensor_tables"}, {"rounding": "stochastic"}])
def test_the_default_lattice_is_z_where_no_other_is_possible(settings):
    """The default is Z or E8; with settings that E8 does not have it makes the packets of Z, under the same digest."""
    assert CodecConfig().lattices == ("Z", "E8")
    assert CodecConfig(**settings).lattices == ("Z",)
    named = CodecConfig(lattice="Z", **settings)
    assert CodecConfig(**settings).digest == named.digest != CodecConfig(lattice="Z").digest
    layout = Layout((TensorSpec("w", (40, 50), "float32", 0, "other"),))
    row = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    packet = Codec(layout, CodecConfig(**settings)).encoder().encode(row, 0)
    assert packet == Codec(layout, named).encoder().encode(row, 0)


def test_digests_tell_configurations_apart():
    """Each setting, and each option of a forecaster, changes the digest; writing 0 for 0.0 does not."""
    base = CodecConfig()
    changes = {
        "predictor": "none",
        "lattice": "raw",
        "nmse": 0.2,
        "momentum": 0.8,
        "dead_zone": 0.1,
        "entropy": "tensor_tables",
        "hold": "mean_error",
        "modes": Annulus(),
        "feedback": "classic",
        "feedback_decay": 0.8,
        "metric": "adam",
        "metric_decay": 0.9,
        "rounding": "stochastic",
    }
    assert set(changes) == {item.name for item in dataclasses.fields(base)} - {"bits"}
    digests = [base.digest] + [dataclasses.replace(base, **{name: value}).digest for name, value in changes.items()]
    digests += [CodecConfig(make_forecaster("linear", history=history)).digest for history in (3, 4)]
    digests += [CodecConfig((make_forecaster("linear", history=history),)).digest for history in (3, 4)]
    digests += [CodecConfig(names).digest for names in (("previous", "momentum"), ("momentum", "previous"))]
    digests += [CodecConfig(hold="mean_rate", bits=bits).digest for bits in (1.0, 2.0)]
    assert len(set(digests)) == len(digests)
    assert CodecConfig(momentum=0).digest == CodecConfig(momentum=0.0).digest


def test_codecs_that_do_not_fit_together_are_refused():
    """A key of no or too many bytes, a forecaster of another stream and one that needs moments raise at once."""
    layout = Layout(())
    for key in (b"", b"x" * 65):
        with pytest.raises(ConfigError, match="`key` must have 1 to 64 bytes"):
            Codec(layout, key=key)
    with pytest.raises(ConfigError, match="needs a forecaster of 'gradients'"):
        Codec(layout, CodecConfig(make_forecaster("linear", stream="weights")))
    Codec(layout, CodecConfig(make_forecaster("linear", stream="weights")), stream="weights")


def test_error_classes_are_what_they_specialise():
    """One base class catches everything; each error is also the built-in that it specialises."""
    assert issubclass(PacketError, CodecError)
    assert issubclass(PacketError, ValueError)
    assert issubclass(OutOfStepError, RuntimeError)
