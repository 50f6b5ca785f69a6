import copy
import pickle

import pytest

from providers.api_keys import (
    ApiKey,
    BadKeys,
    account_of,
    fingerprint,
    parse_key_accounts,
    parse_keys,
    unmatched,
)
from providers.kling.adapter import is_pair
from providers.kling.keys import parse_kling_keys

ONE = "key_" + "1" * 128
TWO = "key_" + "2" * 128


def test_list_keeps_its_order_and_drops_empties_and_outer_spaces():
    keys = parse_keys(f" {ONE} , ,{TWO},", variable="RUNWAY_API_KEY")
    assert [key.value for key in keys] == [ONE, TWO]


@pytest.mark.parametrize("text", ["", " ", ",", " , ,"])
def test_empty_list_has_no_keys(text):
    assert parse_keys(text, variable="RUNWAY_API_KEY") == ()


@pytest.mark.parametrize(
    "value",
    ["key_a b", "key_a\tb", "key_a\nb", '"key_ab"', "'key_ab'", "key_“ab”", "schlüssel", "key_\x00ab", "key_\u200bab"],
)
def test_what_no_key_contains_is_refused_without_showing_it(value):
    with pytest.raises(BadKeys, match="RUNWAY_API_KEY: key 2 of the list") as caught:
        parse_keys(f"{ONE},{value}", variable="RUNWAY_API_KEY")
    assert value not in str(caught.value)


def test_duplicate_is_refused_by_its_fingerprint_only():
    with pytest.raises(BadKeys, match=fingerprint(ONE)) as caught:
        parse_keys(f"{ONE},{TWO},{ONE}", variable="RUNWAY_API_KEY")
    assert ONE not in str(caught.value)


def test_key_does_not_show_its_value():
    key = ApiKey(ONE)
    for shown in (repr(key), str(key), f"{key}", f"{[key]}", repr({"key": key})):
        assert ONE not in shown
        assert key.fingerprint in shown


def test_key_cannot_be_pickled_into_a_message():
    with pytest.raises(TypeError) as caught:
        pickle.dumps(ApiKey(ONE))
    assert ONE not in str(caught.value)


def test_key_is_a_value_that_does_not_change():
    key = ApiKey(ONE)
    assert key == ApiKey(ONE)
    assert hash(key) == hash(ApiKey(ONE))
    assert key != ApiKey(TWO)
    assert key != ONE
    assert copy.deepcopy(key) is key
    assert copy.copy(key) is key
    with pytest.raises(AttributeError):
        key.value = TWO  # type: ignore[misc]


def test_fingerprint_is_stable_short_and_no_plain_sha256():
    assert fingerprint("abc") == fingerprint("abc") != fingerprint("abd")
    assert len(fingerprint("abc")) == 12
    assert not "ba7816bf8f01cfea414140de5dae2223".startswith(fingerprint("abc"))  # sha256("abc")


def test_kling_keys_are_plain_or_pairs():
    plain, pair = parse_kling_keys("api-key-1,access:secret")
    assert (is_pair(plain.value), is_pair(pair.value)) == (False, True)


@pytest.mark.parametrize("value", ["access-1:", ":secret-1", "aa1:bb2:cc3", "::"])
def test_half_a_pair_is_refused_without_showing_it(value):
    with pytest.raises(BadKeys, match="accessKey:secretKey") as caught:
        parse_kling_keys(value)
    assert value not in str(caught.value).replace("accessKey:secretKey", "")


def test_each_key_is_its_own_account_unless_grouped():
    one, two, three = (ApiKey(value) for value in ("one", "two", "three"))
    accounts = parse_key_accounts(f"runway:studio={one.fingerprint}|{two.fingerprint.upper()}, kling:main={'0' * 12}")
    assert account_of("runway", one, accounts) == account_of("runway", two, accounts) == "studio"
    assert account_of("runway", three, accounts) == three.fingerprint
    assert account_of("pika", one, accounts) == one.fingerprint


def test_grouped_fingerprint_without_a_key_is_reported():
    one = ApiKey("one")
    accounts = parse_key_accounts(f"runway:studio={one.fingerprint}|{'0' * 12}")
    assert unmatched(accounts, {"runway": [one]}) == (("runway", "0" * 12),)


@pytest.mark.parametrize(
    "text",
    ["studio", "runway=abc", "runway:studio", "runway:studio=", f"runway:studio={ONE}", "runway:studio=12345678",
     f"runway:st/udio={'0' * 12}", f"runway:a={'0' * 12}|{'0' * 12}", f"runway:a={'0' * 12},runway:b={'0' * 12}"],
)  # fmt: skip
def test_malformed_grouping_stops_the_start_and_shows_no_key(text):
    with pytest.raises(BadKeys, match="KEY_ACCOUNTS") as caught:
        parse_key_accounts(text)
    assert ONE not in str(caught.value)
