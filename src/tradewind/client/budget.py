"""How many extra requests a client may send: a share of those that it was asked for."""


class Budget:
    """Tokens, `share` of one earned by each call, one spent by each extra request.

    After n calls at most `share * n + reserve` were ever spent, however long the trouble lasts, so that a
    struggling server is not asked twice as much (gRFC A6, retry throttling).
    """

    def __init__(self, share: float, reserve: float = 10.0) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"a budget is a share of the calls, 0 to 1, not {share}")
        self._share = share
        self._most = reserve if share else 0.0
        self._tokens = self._most

    @property
    def tokens(self) -> float:
        """Extra requests that may be sent now."""
        return self._tokens

    def earn(self) -> None:
        """A call was begun."""
        self._tokens = min(self._tokens + self._share, self._most)

    def spend(self) -> bool:
        """Take one token; False when there is none."""
        if self._tokens < 1 - 1e-9:
            return False
        self._tokens -= 1
        return True
