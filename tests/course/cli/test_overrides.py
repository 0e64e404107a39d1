"""Fields of a preset changed by name from the command line."""

import pytest

from cxr_helpers.course.cli.overrides import with_overrides
from cxr_helpers.course.core.settings import SettingsError, load_settings

SETTINGS = load_settings({})


def test_fields_of_the_own_stage_and_of_another_take_values_of_their_type():
    pairs = ["batch_size=256", "detect.epochs = 3", "learning_rate=2", "projector=64,64,32"]
    pairs += [
        "detect.anchors_at_every_level=false",
        "detect.batch_norm=frozen",
        "detect.fractions=0.1,1",
    ]
    changed = with_overrides(SETTINGS, pairs, stage="pretrain")
    one, other = changed.pretrain, changed.detect
    assert (one.batch_size, one.learning_rate, one.projector) == (256, 2.0, (64, 64, 32))
    assert (other.epochs, other.batch_norm, other.fractions) == (3, "frozen", (0.1, 1.0))
    assert other.anchors_at_every_level is False and isinstance(one.learning_rate, float)
    assert SETTINGS.pretrain.batch_size == 128
    assert with_overrides(SETTINGS, [], stage="pretrain") == SETTINGS


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("batch_size", "write it as field=value"),
        ("batchsize=3", "did you mean batch_size"),
        ("zzz=3", "there are arch, views"),
        ("train.epochs=3", "'train' is none of pretrain, probe"),
        ("batch_size=2.5", "give a whole number"),
        ("batch_size=many", "'many' is no number"),
        ("learning_rate=True", "give a number"),
        ("detect.anchors_at_every_level=1", "give true or false"),
        ("projector=64,b,32", "'b' is no number"),
        ("projector=", "give at least one number"),
        ("learning_rate=1e999", "1e999 is too large"),
        ("detect.keep=bset", "give one of last, best"),
        ("detect.batch_norm=Frozen", "give one of train, frozen, sync"),
        ("detect.optimizer=lars", "give one of adamw, sgd"),
        ("optimizer=sgd", "give one of adamw, lars"),
        ("epochs=-3", "below 0"),
        ("learning_rate=-0.1", "below 0"),
        ("projector=8,-8", "below 0"),
        ("arch=", "give a word"),
        (f"epochs=1{'0' * 400}", "too large"),
    ],
)
def test_what_cannot_be_set_is_named(pair, message):
    with pytest.raises(SettingsError, match=message) as error:
        with_overrides(SETTINGS, [pair], stage="pretrain")
    assert f"--set {pair}" in str(error.value)
