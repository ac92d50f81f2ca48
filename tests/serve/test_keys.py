"""API keys: made, kept as digests, read from a file that names what is wrong with it."""

import hmac
import pathlib

import pytest

from tradewind.errors import SpecError
from tradewind.serve import keys as module
from tradewind.serve.keys import PREFIX, load_keys, new_key


@pytest.fixture
def file(tmp_path: pathlib.Path):
    """Writes a file of keys and loads it."""

    def load(text: str):
        path = tmp_path / "keys.yaml"
        path.write_text(text)
        return load_keys(path)

    return load


def tenant(*digests: str, **limits: object) -> str:
    lines = "".join(f"      - {digest}\n" for digest in digests)
    more = "".join(f"    {name}: {value}\n" for name, value in limits.items())
    return f"    keys:\n{lines}{more}"


def test_every_key_is_another_and_long():
    """256 random bits, and a prefix by which a leaked one is known."""
    made = {new_key().key for _ in range(100)}
    assert len(made) == 100
    assert all(key.startswith(PREFIX) and len(key) == len(PREFIX) + 43 for key in made)


def test_a_key_names_its_tenant(file):
    """Each of a tenant's keys does, another's does not, and what is no key does not."""
    old, new, other = new_key(), new_key(), new_key()
    text = f"tenants:\n  shop:\n{tenant(old.sha256, new.sha256)}  lab:\n{tenant(other.sha256)}"
    found = file(text)
    assert [found.tenant(key.key) for key in (old, new, other)] == ["shop", "shop", "lab"]
    assert [found.tenant(key) for key in ("", old.sha256, old.key[:-1], old.key + "x", "k" * 10_000)] == [
        None
    ] * 5


def test_digests_are_compared_in_constant_time_and_all_of_them(file, monkeypatch):
    """Which key was given, or none, takes the same comparisons."""
    keys, compared, honest = [new_key() for _ in range(5)], [], hmac.compare_digest

    def compare(a, b):
        compared.append(a)
        return honest(a, b)

    found = file(f"tenants:\n  shop:\n{tenant(*(key.sha256 for key in keys))}")
    monkeypatch.setattr(module.hmac, "compare_digest", compare)
    for key in (keys[0].key, keys[4].key, "wrong"):
        compared.clear()
        found.tenant(key)
        assert len(compared) == 5


def test_limits_come_from_the_file(file):
    """A burst left out is a second's worth."""
    found = file(
        f"tenants:\n  shop:\n{tenant(new_key().sha256, requests_per_s=50, in_flight=4, max_request_mib=0.5)}"
    )
    assert found.allowances["shop"] == (50.0, 50.0, 4, 1 << 19)
    assert not found.open_metrics


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("tenants:\n  shop:\n    keys: [abc]\n", "tenants.shop.keys"),
        ("tenants:\n  shop:\n    key: []\n", "key"),
        ("tenants:\n  'a b':\n    keys: []\n", "a b"),
        (f"tenants:\n  shop:\n{tenant('a' * 64, requests_per_s=0)}", "requests_per_s"),
        (f"tenants:\n  shop:\n{tenant('a' * 64)}  lab:\n{tenant('a' * 64)}", "same key"),
        ("- 1\n", "keys.yaml"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(file, text, why):
    """With its path, before anything is served."""
    with pytest.raises(SpecError, match=r"keys\.yaml") as caught:
        file(text)
    assert why in str(caught.value)
