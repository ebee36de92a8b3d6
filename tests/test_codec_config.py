"""The codec's configuration: checks, plain data, digests; and its errors."""

import dataclasses
import math

import pytest

from deadreckon.codec import CodecConfig, CodecError, ConfigError, OutOfStepError, PacketError
from deadreckon.models import make_forecaster

BAD_SETTINGS = [
    ({"predictor": "psychic"}, "`predictor` must be one of"),
    ({"predictor": 3}, "must be a name or a Forecaster, got int"),
    ({"lattice": "E7"}, "`lattice` must be one of"),
    ({"nmse": 0.0}, "`nmse` must be at least 0.0 and below 1.0"),
    ({"nmse": 1.0}, "`nmse` must be"),
    ({"nmse": math.nan}, "`nmse` must be a finite number"),
    ({"nmse": True}, "`nmse` must be a finite number"),
    ({"momentum": 1.0}, "`momentum` must be"),
    ({"dead_zone": 0.5}, "`dead_zone` must be"),
    ({"dead_zone": -0.1}, "`dead_zone` must be"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS)
def test_bad_settings_are_refused(settings, message):
    """Every setting is checked when the configuration is made, and the message says what is allowed."""
    with pytest.raises(ConfigError, match=message):
        CodecConfig(**settings)


def test_configurations_round_trip_as_plain_data():
    """`from_dict(to_dict())` is the identity; unknown entries and predictors without a name are refused."""
    config = CodecConfig("previous", nmse=0.3, momentum=0.5)
    assert CodecConfig.from_dict(config.to_dict()) == config
    assert CodecConfig.from_dict({}) == CodecConfig()
    with pytest.raises(ConfigError, match=r"Unknown entries in a codec configuration: \['bits'\]"):
        CodecConfig.from_dict({"bits": 3})
    with pytest.raises(ConfigError, match="Linear object cannot be written"):
        CodecConfig(make_forecaster("linear")).to_dict()


def test_digests_tell_configurations_apart():
    """Each setting, and each option of a forecaster, changes the digest; writing 0 for 0.0 does not."""
    base = CodecConfig()
    changes = {"predictor": "none", "lattice": "raw", "nmse": 0.2, "momentum": 0.8, "dead_zone": 0.1}
    digests = {base.digest} | {dataclasses.replace(base, **{name: value}).digest for name, value in changes.items()}
    digests |= {CodecConfig(make_forecaster("linear", history=history)).digest for history in (3, 4)}
    assert len(digests) == 8
    assert CodecConfig(momentum=0).digest == CodecConfig(momentum=0.0).digest


def test_error_classes_are_what_they_specialise():
    """One base class catches everything; each error is also the built-in that it specialises."""
    assert issubclass(PacketError, CodecError)
    assert issubclass(PacketError, ValueError)
    assert issubclass(OutOfStepError, RuntimeError)
