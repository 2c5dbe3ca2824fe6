"""The truth table of consent: what each signal says alone, written by hand, and what several say together."""

import itertools
import random

import pytest
from tests.serving.test_tcf import consent_string

from forecart.serving.consent import judge

A, D, U, SILENT = "allowed", "denied", "unreadable", "silent"
YES, NO = consent_string({1, 3, 4}), consent_string({1, 2, 7})
# (signal, value, what it says): A allows, D denies, U cannot be read, SILENT allows nothing by itself.
ALONE = [
    ("gdpr", 0, A),
    ("gdpr", False, A),
    ("gdpr", 2, U),
    ("gdpr", -1, U),
    ("gdpr", "0", U),
    ("gdpr", "no", U),
    ("gdpr", 0.0, U),
    ("gdpr", [], U),
    ("gdpr", {}, U),
    ("tcf_purposes", [1, 3, 4], A),
    ("tcf_purposes", [4, 3, 2, 1, 7, 9, 10], A),
    ("tcf_purposes", [1, 3], D),
    ("tcf_purposes", [1, 4], D),
    ("tcf_purposes", [3, 4], D),
    ("tcf_purposes", [], D),
    ("tcf_purposes", [2, 7, 9], D),
    ("tcf_purposes", [0, 1, 3, 4], U),
    ("tcf_purposes", [1, 3, 4, 25], U),
    ("tcf_purposes", ["1", "3", "4"], U),
    ("tcf_purposes", [1, 3, 4, True], U),
    ("tcf_purposes", [1.0, 3.0, 4.0], U),
    ("tcf_purposes", "1,3,4", U),
    ("tcf_purposes", 7, U),
    ("tcf_purposes", {"1": True}, U),
    ("tc_string", YES, A),
    ("tc_string", consent_string(range(1, 25)), A),
    ("tc_string", YES + ".YAAAAAAAAAA", A),
    ("tc_string", NO, D),
    ("tc_string", consent_string(()), D),
    ("tc_string", consent_string({3, 4}), D),
    ("tc_string", "", U),
    ("tc_string", "COtybn4PA_zT4KjACBENAPCIAEBAAECAAIAAAAAAAAAA"[:20], U),
    ("tc_string", consent_string({1, 3, 4}, version=1), U),
    ("tc_string", "../../etc/passwd", U),
    ("tc_string", "\x00", U),
    ("tc_string", 1, U),
    ("tc_string", ["a"], U),
    ("gpp", "DBABMA~CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA", U),
    ("gpp", "", U),
    ("gpp", 7, U),
    ("gpp_sections", {"usnat": {"SaleOptOut": 2, "SharingOptOut": 2, "TargetedAdvertisingOptOut": 2}}, A),
    ("gpp_sections", {"usnat": {"SaleOptOut": 0, "TargetedAdvertisingOptOut": 2}}, A),
    ("gpp_sections", {"usca": {"SaleOptOut": 2, "SharingOptOut": 2, "Gpc": False}}, A),
    ("gpp_sections", {"usva": {"TargetedAdvertisingOptOut": 2, "KnownChildSensitiveDataConsents": 0}}, A),
    ("gpp_sections", {"usnat": {"SaleOptOut": 2, "PersonalDataConsents": 2}}, A),
    ("gpp_sections", {"usnat": {"SaleOptOut": 1, "SharingOptOut": 2}}, D),
    ("gpp_sections", {"usnat": {"SaleOptOut": 2, "TargetedAdvertisingOptOut": 1}}, D),
    ("gpp_sections", {"usca": {"SharingOptOut": 1}}, D),
    ("gpp_sections", {"usca": {"SaleOptOut": 2, "Gpc": True}}, D),
    ("gpp_sections", {"usnat": {"SaleOptOut": 2, "KnownChildSensitiveDataConsents": [0, 1]}}, D),
    ("gpp_sections", {"usnat": {"SaleOptOut": 2, "PersonalDataConsents": 1}}, D),
    ("gpp_sections", {"usva": {"SaleOptOut": 2}, "usca": {"SaleOptOut": 1}}, D),
    ("gpp_sections", {"tcfeuv2": [1, 3, 4]}, A),
    ("gpp_sections", {"tcfeuv2": [1, 2]}, D),
    ("gpp_sections", {"tcfcav1": [1, 3, 4]}, A),
    ("gpp_sections", {"tcfcav1": [1, 2]}, D),
    ("gpp_sections", {"tcfeuv2": "CPXx"}, U),
    ("gpp_sections", {"tcfeuv2": [1, 3, 4], "usnat": {"SaleOptOut": 1}}, D),
    ("gpp_sections", {"tcfeuv2": [1, 3, 4], "usnat": {"Version": 1}}, U),
    ("gpp_sections", {"usnat": {"SaleOptOut": 3}}, U),
    ("gpp_sections", {"usnat": {"SaleOptOut": "2"}}, U),
    ("gpp_sections", {"usnat": {"SaleOptOut": True}}, U),
    ("gpp_sections", {"usnat": {"SaleOptOut": 2, "Gpc": "yes"}}, U),
    ("gpp_sections", {"usnat": {"SaleOptOut": 2, "PersonalDataConsents": 9}}, U),
    ("gpp_sections", {"usnat": {}}, U),
    ("gpp_sections", {"usnat": "1~2~2"}, U),
    ("gpp_sections", {"7": {"SaleOptOut": 2}}, U),
    ("gpp_sections", {"brlgpd": {"SaleOptOut": 2}}, U),
    ("gpp_sections", {}, U),
    ("gpp_sections", [], U),
    ("gpp_sections", "usnat", U),
    ("us_privacy", "1YNN", A),
    ("us_privacy", "1---", A),
    ("us_privacy", "1NN-", A),
    ("us_privacy", "1ynn", A),
    ("us_privacy", "1YYN", D),
    ("us_privacy", "1yyn", D),
    ("us_privacy", "1-Y-", D),
    ("us_privacy", "2YNN", U),
    ("us_privacy", "1YN", U),
    ("us_privacy", "1YNNN", U),
    ("us_privacy", "1YXN", U),
    ("us_privacy", "", U),
    ("us_privacy", 1, U),
    ("opt_out", False, A),
    ("opt_out", 0, A),
    ("opt_out", True, D),
    ("opt_out", 1, D),
    ("opt_out", "false", U),
    ("opt_out", "", U),
    ("opt_out", 2, U),
    ("opt_out", [], U),
    ("gpc", 0, SILENT),
    ("gpc", False, SILENT),
    ("gpc", 1, D),
    ("gpc", True, D),
    ("gpc", "1", U),
    ("lmt", 0, SILENT),
    ("lmt", 1, D),
    ("lmt", "0", U),
    ("coppa", 0, SILENT),
    ("coppa", 1, D),
    ("coppa", 3, U),
    ("gdrp", 0, U),
    ("consent", True, U),
    ("OPT_OUT", False, U),
    ("", 0, U),
]
PURPOSES = [
    ("tcf_purposes", [1, 3, 4], A),
    ("tc_string", YES, A),
    ("gpp_sections", {"tcfeuv2": [1, 3, 4]}, A),
]


def test_only_purposes_of_the_eu_stand_for_the_eu():
    """Canada's section of the GPP says nothing where the GDPR holds: IAB, GPP section ids 2 and 5."""
    of_canada, of_the_eu = {"tcfcav1": [1, 3, 4]}, {"tcfeuv2": [1, 3, 4]}
    assert judge({"gdpr": 1, "gpp_sections": of_canada}) == U
    assert judge({"gdpr": 1, "gpp_sections": of_canada | of_the_eu}) == A
    assert judge({"gdpr": 1, "gpp_sections": of_canada, "tcf_purposes": [1, 3, 4]}) == A
    assert judge({"gdpr": 1, "gpp_sections": {"tcfcav1": [1, 2]}}) == D
    assert judge({"gdpr": 0, "gpp_sections": of_canada}) == A


def together(words):
    """Denied over unreadable over allowed; nothing that allows cannot be read either."""
    for word in (D, U, A):
        if word in words:
            return word
    return U


@pytest.mark.parametrize(("name", "value", "says"), ALONE)
def test_each_signal_alone(name, value, says):
    assert judge({name: value}) == (U if says == SILENT else says)


@pytest.mark.parametrize(("name", "value", "says"), ALONE)
def test_each_signal_beside_one_that_allows(name, value, says):
    """What allows elsewhere never outweighs what denies or cannot be read."""
    given = {"opt_out": False, "gdpr": 0} | {name: value}
    assert judge(given) == (D if says == D else U if says == U else A)


@pytest.mark.parametrize(("name", "value", "says"), PURPOSES)
def test_where_gdpr_applies_purposes_are_needed(name, value, says):
    assert judge({"gdpr": 1, name: value}) == says
    assert judge({"gdpr": True, name: value}) == says
    assert judge({"gdpr": 1}) == judge({"gdpr": 1, "opt_out": False}) == U
    assert judge({"gdpr": 1, "us_privacy": "1YNN", "gpc": 0}) == U


@pytest.mark.parametrize("signals", [None, {}, {"gdpr": None}, {"gpp": None, "opt_out": None, "x": None}])
def test_who_says_nothing_is_not_answered_personally(signals):
    assert judge(signals) == U


def test_a_raw_gpp_string_needs_its_sections():
    assert judge({"gpp": "DBABMA~x", "gpp_sections": {"usnat": {"SaleOptOut": 2}}}) == A
    assert judge({"gpp": "DBABMA~x", "gpp_sections": {"usnat": {"SaleOptOut": 1}}}) == D
    assert judge({"gpp": "DBABMA~x", "opt_out": False}) == U


def test_any_combination_is_the_worst_of_its_signals():
    generator = random.Random(0)
    by_name = {name: list(rows) for name, rows in itertools.groupby(ALONE, key=lambda row: row[0])}
    names = [name for name in by_name if name != "gpp"]  # what it says depends on its sections
    seen = set()
    for _ in range(20_000):
        rows = [
            generator.choice(by_name[name]) for name in generator.sample(names, generator.randrange(2, 6))
        ]
        expected = together({says for *_, says in rows})
        assert judge({name: value for name, value, _ in rows}) == expected, rows
        seen.add(expected)
    assert seen == {A, D, U}
