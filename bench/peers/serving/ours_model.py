"""The GIL-holding model as `tradewind serve` takes it."""

from bench.peers.serving import model


class Spin:
    """Rows in, sums out, after as long as the batch takes."""

    inputs = {"x": "FP32[-1, 4]"}  # noqa: RUF012
    outputs = {"y": "FP32[-1, 1]"}  # noqa: RUF012

    def __call__(self, x: model.Array) -> model.Array:
        return model.spin(x)
