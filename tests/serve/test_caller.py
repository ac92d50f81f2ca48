"""Who calls: from headers, from the body, from a key; a bounded number of names."""

import pytest

from tradewind.serve import caller
from tradewind.serve.caller import NOBODY, OTHERS, Caller, Callers
from tradewind.serve.errors import RequestError


def callers() -> Callers:
    return Callers(["high", "normal", "low"], "normal", {"acme": 3.0})


def headers(**values: str):
    return lambda name: values.get(name.decode().replace("-", "_"))


@pytest.mark.parametrize(
    ("stated", "body", "rank"),
    [
        (None, None, 1),
        ("high", None, 0),
        ("low", None, 2),
        ("1", None, 0),
        ("0", None, 1),
        ("99", None, 2),
        ("low", "high", 0),
        ("low", 1, 0),
        (None, 0, 1),
    ],
)
def test_a_class_is_a_name_or_a_number_and_the_body_counts_before_the_header(stated, body, rank):
    """1 is the most important, 0 the default, beyond the last is the last."""
    given = {} if stated is None else {"x_priority": stated}
    assert callers().caller_of(headers(**given), body) == Caller(NOBODY, rank)


@pytest.mark.parametrize("stated", ["urgent", "-1", "1.5", "", "1" * 30, True, 1.0, ["high"], {}])
def test_a_class_that_there_is_not_is_refused(stated):
    """400, and the message lists the classes."""
    with pytest.raises(RequestError, match="high, normal, low") as caught:
        callers().caller_of(headers(), stated)
    assert caught.value.status == 400


def test_a_tenant_is_whom_the_header_names():
    """And weighs what the endpoint says, else one."""
    made = callers()
    assert made.caller_of(headers(x_tenant="claims")).tenant == "claims"
    assert (made.weight("acme"), made.weight("claims")) == (3.0, 1.0)


@pytest.mark.parametrize("name", ["", "a" * 65, "with space", "caf\xe9", "-a", 'a"b', "a\nb"])
def test_what_is_no_name_is_refused(name):
    """Nothing that would not stand in a metric's label or a log line."""
    with pytest.raises(RequestError, match="x-tenant must be"):
        callers().caller_of(headers(x_tenant=name))


def test_so_many_tenants_are_told_apart_and_no_more(monkeypatch):
    """Those who come later share one name; those who are known stay."""
    monkeypatch.setattr(caller, "MAX_TENANTS", 5)
    made = callers()
    names = [made.caller_of(headers(x_tenant=name)).tenant for name in ("a", "b", "c", "d", "a", "acme")]
    assert names == ["a", "b", OTHERS, OTHERS, "a", "acme"]
