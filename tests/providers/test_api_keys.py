import copy
import pickle

import pytest

from providers.api_keys import (
    ApiKey,
    BadKeys,
    ValueWithheld,
    account_of,
    fingerprint,
    names_of,
    parse_key_accounts,
    parse_keys,
    parse_names,
    unmatched,
)
from providers.kling.adapter import is_pair
from providers.kling.keys import parse_kling_keys
from providers.registry import BY_NAME

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


def test_a_key_that_is_named_has_everything_but_its_value():
    keys = {"runway": (ApiKey(ONE), ApiKey(TWO)), "kling": (ApiKey("access:secret"),), "pika": ()}
    named = parse_names(names_of(keys), variable="NAMES")
    assert named == {name: several for name, several in keys.items() if several}
    assert [key.shape for several in named.values() for key in several] == ["x", "x", "x:x"]
    for key in (key for several in named.values() for key in several):
        with pytest.raises(ValueWithheld, match=key.fingerprint):
            _ = key.value
    for bad in (ONE, f"runway={ONE}", "runway/0123456789ab", "runway/0123456789ab/x/", "runway/0123456789AB/x"):
        with pytest.raises(BadKeys) as caught:
            parse_names(bad, variable="NAMES")
        assert bad not in str(caught.value)


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
        key.fingerprint = "0123456789ab"  # type: ignore[misc]


def test_fingerprint_is_stable_short_and_no_plain_sha256():
    assert fingerprint("abc") == fingerprint("abc") != fingerprint("abd")
    assert len(fingerprint("abc")) == 12
    assert not "ba7816bf8f01cfea414140de5dae2223".startswith(fingerprint("abc"))  # sha256("abc")


def test_kling_keys_are_plain_or_pairs():
    plain, pair = parse_kling_keys("api-key-1,access:secret")
    assert (is_pair(plain.value), is_pair(pair.value)) == (False, True)


@pytest.mark.parametrize("value", ["access-1:", ":secret-1", "aa1:bb2:cc3:dd4", "::"])
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


@pytest.mark.parametrize("between", ["|", ";", " ", "/", "\\", " : ", ": ", " :", " | ", "\t", "\n"])
def test_a_kling_pair_with_another_separator_is_told_how_to_write_it(between):
    access, secret = "a1" * 16, "s2" * 16
    with pytest.raises(BadKeys, match=r"key 2 of the list .* accessKey:secretKey") as caught:
        parse_kling_keys(f"plain-1,{access}{between}{secret}")
    assert access not in str(caught.value)
    assert secret not in str(caught.value)


def test_a_plain_kling_key_may_have_a_slash():
    assert [key.value for key in parse_kling_keys("abc/defgh+1==")] == ["abc/defgh+1=="]


@pytest.mark.parametrize("parse", [parse_keys, parse_kling_keys])
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "Key ", "Token  ", "Authorization: Bearer ", "Basic\t"])
def test_the_headers_word_before_a_key_is_told(parse, scheme):
    with pytest.raises(BadKeys, match="key 2 of the list must be the key alone") as caught:
        parse(f"{ONE},{scheme}{TWO}", variable="A_API_KEY")
    assert TWO not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    ["key_a;key_b", "key_a|key_b", "$KEY", "${KEY}", "<key>", "[key]", "(key)", "{key}", "key!", "key#1", "key\\n",
     "key%20", "https://example.com/key", "key" * 1000, "ключ", "key_１"],
)  # fmt: skip
def test_what_no_header_could_carry_as_a_key_is_refused_without_showing_it(value):
    with pytest.raises(BadKeys, match="PIKA_API_KEY: key 2 of the list") as caught:
        parse_keys(f"{ONE},{value}", variable="PIKA_API_KEY")
    assert value not in str(caught.value)


def test_keys_of_every_provider_are_taken():
    for value in (ONE, "6f2c1a7e-0d3b-4f5e-9a8b-1c2d3e4f5a6b:0123456789abcdef0123456789abcdef", "eyJh.eyJp._x-Y~z+/=="):
        assert [key.value for key in parse_keys(value, variable="PIKA_API_KEY", pairs=True)] == [value]


def test_a_group_named_by_a_key_does_not_show_it():
    for text in (f"runway:{ONE[:40]}=notafingerprint", f"{ONE[:40]}", f"runway:a={ONE[:12]}"):
        with pytest.raises(BadKeys, match="entry 2 ") as caught:
            parse_key_accounts(f"runway:ok={'0' * 12},{text}")
        assert ONE[:12] not in str(caught.value)


FAL = "6f2c1a7e-0d3b-4f5e-9a8b-1c2d3e4f5a6b:0123456789abcdef0123456789abcdef"
PAIR = "A" * 32 + ":" + "s" * 32
RUNWAY, PIKA, KLING = (BY_NAME[name].parse_keys for name in ("runway", "pika", "kling"))


@pytest.mark.parametrize(
    ("parse", "entry", "name", "value"),
    [
        (RUNWAY, f"studio:{ONE}", "studio", ONE),  # Runway's keys have no colon
        (RUNWAY, f"studio={ONE}", "studio", ONE),
        (RUNWAY, "eyJh.eyJp==", "", "eyJh.eyJp=="),  # = at the end belongs to the key
        (PIKA, FAL, "", FAL),  # id:secret
        (PIKA, f"main={FAL}", "main", FAL),
        (PIKA, f"main:{FAL}", "main", FAL),  # three parts can be nothing else
        (KLING, "access:secret", "", "access:secret"),  # and never the plain key of a name
        (KLING, f"team-a:{PAIR}", "team-a", PAIR),
        (KLING, f"team-a={PAIR}", "team-a", PAIR),
        (KLING, "team-a=plainkey", "team-a", "plainkey"),
    ],
)
def test_a_key_may_have_a_name_before_it(parse, entry, name, value):
    (key,) = parse(entry, variable="AN_API_KEY")
    assert (key.name, key.value, key.fingerprint) == (name, value, fingerprint(value))
    assert key.label == name or not name


@pytest.mark.parametrize(
    "bad",
    [
        f"Studio:{TWO}", f":{TWO}", f"{'n' * 33}={TWO}", f"stu.dio={TWO}", f"-a={TWO}",
        f"key_aaaaaaaa:{TWO}", f"sk-live={TWO}", f"{'0a' * 6}={TWO}", f"a1b2c3d4e5f6a7b8={TWO}", f"key_2222:{TWO}",
        f"22222={TWO}",  # a part of the key itself
        f"studio={TWO}",  # the first one's name
    ],
)  # fmt: skip
def test_a_name_that_is_none_or_could_be_a_key_is_refused_without_showing_either(bad):
    with pytest.raises(BadKeys, match="RUNWAY_API_KEY: key 2 of the list") as caught:
        RUNWAY(f"studio:{ONE},{bad}", variable="RUNWAY_API_KEY")
    assert TWO not in str(caught.value)
    assert bad.split("=")[0].split(":")[0] not in str(caught.value).replace("key 2 of the list", "") or bad[0] in ":="


def test_a_key_without_a_name_is_known_by_its_place_and_last_four_characters():
    keys = RUNWAY(f"studio:{ONE},short-key,,key_{'0' * 124}0003", variable="RUNWAY_API_KEY")
    assert [key.label for key in keys] == [
        "studio",
        "2nd of RUNWAY_API_KEY",  # of a short key nothing is shown
        "3rd of RUNWAY_API_KEY, ends in …0003",
    ]
    assert KLING(f"{'A' * 40}:short", variable="KLING_API_KEY")[0].label == "1st of KLING_API_KEY"
    assert PIKA(FAL, variable="PIKA_API_KEY")[0].label == "1st of PIKA_API_KEY, ends in …cdef"
    many = RUNWAY(",".join(f"k{number}-key" for number in range(1, 24)), variable="K")
    assert [many[place - 1].label for place in (4, 11, 12, 13, 21, 22, 23)] == [
        "4th of K", "11th of K", "12th of K", "13th of K", "21st of K", "22nd of K", "23rd of K",
    ]  # fmt: skip


def test_a_process_without_the_values_calls_the_keys_the_same():
    keys = {
        "runway": RUNWAY(f"studio:{ONE},short,{TWO}", variable="RUNWAY_API_KEY"),
        "kling": KLING(PAIR, variable="KLING_API_KEY"),
    }
    there = parse_names(names_of(keys), variable="NAMES")
    for provider, several in keys.items():
        assert [(key.label, key.shape) for key in there[provider]] == [(key.label, key.shape) for key in several]


def test_groups_take_names_and_fingerprints():
    keys = {"runway": RUNWAY(f"one:{ONE},{TWO}", variable="RUNWAY_API_KEY")}
    assert parse_key_accounts(f"runway:main=one|{fingerprint(TWO)}", keys=keys) == {
        ("runway", fingerprint(ONE)): "main",
        ("runway", fingerprint(TWO)): "main",
    }
    for bad in ("runway:main=two", "pika:main=one", f"runway:a=one|{fingerprint(ONE)}"):
        with pytest.raises(BadKeys, match=r"KEY_ACCOUNTS: entry 1 (lists|must list names)"):
            parse_key_accounts(bad, keys=keys)
