"""May this request be answered personally? What a request says of consent, as allowed, denied or unreadable.

Each signal that is there gives a verdict of its own, and the worst of them holds: denied over unreadable over
allowed. Nothing that allows is unreadable too, so a request that says nothing gets a non-personal answer.

| signal | allows | denies | says nothing alone | anything else |
|---|---|---|---|---|
| `gdpr` | 0 | | 1: then purposes are needed | unreadable |
| `tcf_purposes` [1, 3, 4, ...] | 1, 3 and 4 in it | one of them missing | | unreadable |
| `tc_string` | as its purposes | as its purposes | | unreadable |
| `gpp_sections` {"usnat": {...}} | opt-outs 0 or 2 | an opt-out is 1, `Gpc`, a consent is 1 | | unreadable |
| `gpp_sections` {"tcfeuv2": [1, 3, 4]} | as purposes | as purposes | | unreadable |
| `gpp_sections` {"tcfcav1": [1, 3, 4]} | as purposes | as purposes | | unreadable |
| `gpp` (a raw string) | | | | unreadable unless sections come with it |
| `us_privacy` "1YNN" | third is N or - | third is Y | | unreadable |
| `opt_out` | 0, false | 1, true | | unreadable |
| `gpc`, `lmt`, `coppa` | | 1, true | 0, false | unreadable |
| any other name | | | | unreadable |

Purposes: 1 store or read on the device, 3 make a profile for advertising, 4 use it to choose advertising.
With `gdpr` 1 and no purposes the verdict is unreadable; Canada's (`tcfcav1`) are none of the EU's.
null is the same as a signal that is not there.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Literal

from forecart.serving.tcf import read_purposes

Verdict = Literal["allowed", "denied", "unreadable"]
_Judged = Verdict | None
NEEDED_PURPOSES: Final = frozenset({1, 3, 4})
_MAX_PURPOSE: Final = 24
_US_SECTION: Final = "us"
_EU_SECTION: Final = "tcfeuv2"
_TCF_SECTIONS: Final = (_EU_SECTION, "tcfcav1")
_US_OPT_OUT: Final[dict[int, _Judged]] = {0: "allowed", 1: "denied", 2: "allowed"}
_US_CONSENTS: Final = ("PersonalDataConsents", "KnownChildSensitiveDataConsents")
_US_PRIVACY_LENGTH: Final = 4


def judge(signals: Mapping[str, Any] | None) -> Verdict:
    """Returns whether a request with these signals may be answered personally; see the module."""
    if not signals:
        return "unreadable"
    verdicts = [_judge_one(name, value, signals) for name, value in signals.items() if value is not None]
    if signals.get("gdpr") == 1 and not _has_eu_purposes(signals):
        verdicts.append("unreadable")
    return _worst(verdicts)


def _worst(verdicts: Collection[_Judged]) -> Verdict:
    if "denied" in verdicts:
        return "denied"
    return "allowed" if "allowed" in verdicts and "unreadable" not in verdicts else "unreadable"


def _judge_one(name: str, value: Any, given: Mapping[str, Any]) -> _Judged:
    if name == "gpp":
        return None if given.get("gpp_sections") else "unreadable"
    judge_value = _JUDGES.get(name)
    return "unreadable" if judge_value is None else judge_value(value)


def _by_flag(*, no: _Judged, yes: _Judged) -> Callable[[Any], _Judged]:
    """Returns the judge of a yes or no, which comes as a truth value or as 0 or 1."""

    def judge_flag(value: Any) -> _Judged:
        if not isinstance(value, int) or value not in (0, 1):
            return "unreadable"
        return yes if value else no

    return judge_flag


def _judge_purposes(value: Any) -> _Judged:
    if not isinstance(value, list) or not all(_is_purpose(one) for one in value):
        return "unreadable"
    return "allowed" if set(value) >= NEEDED_PURPOSES else "denied"


def _is_purpose(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _MAX_PURPOSE


def _judge_tc_string(value: Any) -> _Judged:
    purposes = read_purposes(value) if isinstance(value, str) else None
    return "unreadable" if purposes is None else _judge_purposes(sorted(purposes))


def _judge_sections(value: Any) -> _Judged:
    if not isinstance(value, dict) or not value:
        return "unreadable"
    return _worst({_judge_section(str(name), section) for name, section in value.items()})


def _judge_section(name: str, section: Any) -> _Judged:
    if name in _TCF_SECTIONS:
        return _judge_purposes(section)
    if not name.startswith(_US_SECTION) or not isinstance(section, dict):
        return "unreadable"
    verdicts: set[_Judged] = set()
    for field, value in section.items():
        if field.endswith("OptOut"):
            verdicts.add(_US_OPT_OUT.get(value, "unreadable") if type(value) is int else "unreadable")
        elif field == "Gpc":
            verdicts.add(_JUDGES["gpc"](value))
        elif field in _US_CONSENTS:
            verdicts.add(_judge_us_consents(value))
    return _worst(verdicts)


def _judge_us_consents(value: Any) -> _Judged:
    """0 does not apply, 1 no consent, 2 consent; one number or a list of them."""
    values = value if isinstance(value, list) else [value]
    if not all(type(one) is int and one in (0, 1, 2) for one in values):
        return "unreadable"
    return "denied" if 1 in values else None


def _judge_us_privacy(value: Any) -> _Judged:
    if not isinstance(value, str) or len(value) != _US_PRIVACY_LENGTH or value[0] != "1":
        return "unreadable"
    if not set(value[1:].upper()) <= set("YN-"):
        return "unreadable"
    return "denied" if value[2] in "Yy" else "allowed"


def _has_eu_purposes(given: Mapping[str, Any]) -> bool:
    sections = given.get("gpp_sections")
    in_sections = isinstance(sections, dict) and _EU_SECTION in sections
    purposes = given.get("tcf_purposes"), given.get("tc_string")
    return purposes != (None, None) or in_sections


_JUDGES: Final[dict[str, Callable[[Any], _Judged]]] = {
    "gdpr": _by_flag(no="allowed", yes=None),
    "tcf_purposes": _judge_purposes,
    "tc_string": _judge_tc_string,
    "gpp_sections": _judge_sections,
    "us_privacy": _judge_us_privacy,
    "opt_out": _by_flag(no="allowed", yes="denied"),
    "gpc": _by_flag(no=None, yes="denied"),
    "lmt": _by_flag(no=None, yes="denied"),
    "coppa": _by_flag(no=None, yes="denied"),
}
