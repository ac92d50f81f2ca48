"""Where users are fetched from: what is taken, what is refused, and what is never shown."""

import pytest

from tradewind.errors import SpecError
from tradewind.spec import EndpointSpec, FeatureSpec, decode, to_dict


def test_a_store_is_a_url_or_a_file() -> None:
    """From YAML as from Python; ten milliseconds and `user:` where nothing is said."""
    spec = decode(EndpointSpec, 'model: m\nfeatures: {store: "redis://h:6379/0"}')
    assert spec.features == FeatureSpec(store="redis://h:6379/0", key="user:{user}", max_ms=10.0)
    stores = [
        "rediss://u:p@h/0?ssl_ca_certs=ca.pem",
        "unix:///run/redis.sock?db=1",
        "redis://[::1]:1",
        "a/users.jsonl",
    ]
    assert [FeatureSpec(store=store).scheme for store in stores] == ["rediss", "unix", "redis", ""]
    assert to_dict(FeatureSpec(store="redis://:s3cret@h"))["store"] == "redis://:s3cret@h", "it is to be used"


WRONG = [
    ({"store": ""}, "store: : name a file of JSON lines, or a URL"),
    (
        {"store": "http://h/"},
        "http://h/: there is no store http://; there are redis://, rediss://, unix:// and files",
    ),
    ({"store": "redis:///0"}, "name the host, as in redis://"),
    ({"store": "unix://"}, "name the socket"),
    ({"store": "redis://h:port"}, "not a URL"),
    ({"store": "redis://[::1"}, "not a URL"),
    ({"store": "x", "key": "user"}, "key: 'user' must hold {user} once"),
    ({"store": "x", "key": "{user}:{user}"}, "must hold {user} once"),
    ({"store": "x", "max_ms": 0}, "max_ms"),
]


@pytest.mark.parametrize(("fields", "why"), WRONG)
def test_what_cannot_be_meant_is_refused(fields: dict, why: str) -> None:
    with pytest.raises(SpecError) as caught:
        FeatureSpec(**fields)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        'features: {store: "redis://:s3cret@h:port/0"}',
        'features: {store: "http://u:s3cret@h/"}',
        'features: {store: "redis:///0?password=s3cret"}',
        'features: "redis://:s3cret@h/0"',
        'features: {store: "redis://:s3cret@h/0"',
        "features: {store: redis://:s3cret@h/0, max_ms: redis://:s3cret@h/0}",
    ],
)
def test_a_password_is_in_no_message(text: str) -> None:
    """Wherever it was written, and whatever is wrong with it."""
    with pytest.raises(SpecError) as caught:
        decode(EndpointSpec, f"model: m\n{text}")
    assert "s3cret" not in str(caught.value)


def test_a_password_is_not_in_what_python_shows() -> None:
    for shown in (repr, str, lambda spec: str(spec.features.shown()), lambda spec: f"{spec.features}"):
        text = shown(EndpointSpec(model="m", features=FeatureSpec(store="redis://u:s3cret@h/0")))
        assert "s3cret" not in text
        assert "redis://***@h/0" in text
