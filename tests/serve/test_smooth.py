"""What was seen lately."""

from tradewind.serve.smooth import Peak


def test_a_peak_fades_until_a_larger_one_comes():
    """It halves every ten seconds; a smaller value does not replace what is left of it, nor does a negative one."""
    peak = Peak(10.0)
    assert peak.left(5.0) == 0.0
    peak.observe(-0.01, 5.0)
    assert peak.left(5.0) == 0.0
    peak.observe(0.08, 10.0)
    assert [peak.left(at) for at in (10.0, 20.0, 40.0)] == [0.08, 0.04, 0.01]
    peak.observe(0.03, 20.0)
    assert peak.left(20.0) == 0.04
    peak.observe(0.05, 20.0)
    assert peak.left(30.0) == 0.025
