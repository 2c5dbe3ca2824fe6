"""Consent strings, built bit by bit from the field table of the specification."""

import base64
import random

import pytest

from forecart.serving.tcf import read_purposes

# IAB Tech Lab, "Consent string and vendor list formats v2", "The core string": name and number of bits.
FIELDS = {
    "Version": 6,
    "Created": 36,
    "LastUpdated": 36,
    "CmpId": 12,
    "CmpVersion": 12,
    "ConsentScreen": 6,
    "ConsentLanguage": 12,
    "VendorListVersion": 12,
    "TcfPolicyVersion": 6,
    "IsServiceSpecific": 1,
    "UseNonStandardTexts": 1,
    "SpecialFeatureOptIns": 12,
    "PurposesConsent": 24,
    "PurposesLITransparency": 24,
    "PurposeOneTreatment": 1,
    "PublisherCC": 12,
    "MaxVendorId": 16,
    "IsRangeEncoding": 1,
}


def consent_string(purposes, *, version=2, ones=(), drop_bits=0):
    """The core segment with these purposes; the fields of `ones` are all ones."""
    values = {name: "0" * width for name, width in FIELDS.items()}
    values |= {name: "1" * FIELDS[name] for name in ones}
    values["Version"] = f"{version:06b}"
    values["PurposesConsent"] = "".join("1" if number in purposes else "0" for number in range(1, 25))
    bits = "".join(values.values())
    bits = bits[: len(bits) - drop_bits]
    bits += "0" * (-len(bits) % 8)
    raw = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@pytest.mark.parametrize("number", range(1, 25))
def test_each_purpose_is_its_own_bit(number):
    assert read_purposes(consent_string({number})) == {number}
    assert read_purposes(consent_string(set(range(1, 25)) - {number})) == set(range(1, 25)) - {number}


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in ("Version", "PurposesConsent")])
def test_no_other_field_is_read_as_a_purpose(name):
    assert read_purposes(consent_string({2, 9}, ones=[name])) == {2, 9}


def test_segments_after_the_core_do_not_matter():
    text = consent_string({1, 3, 4})
    assert read_purposes(f"{text}.IFoEUQQgAIQwgIwQABAEAAAAOIAACAIAAAAQ.YAAAAAAAAAA") == {1, 3, 4}


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "1YNN",
        "!!!!",
        consent_string({1, 3, 4}, version=1),
        consent_string({1, 3, 4}, version=3),
        consent_string({1, 3, 4}, drop_bits=40),
        consent_string({1, 3, 4})[:-8],
        consent_string({1, 3, 4}) + "\n",
        " " + consent_string({1, 3, 4}),
        consent_string({1, 3, 4}) + "é",
        "A" * 100_000,
        "DBABMA~CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA",
    ],
)
def test_anything_else_is_no_consent_string(text):
    assert read_purposes(text) is None


def test_random_text_never_raises():
    generator = random.Random(0)
    for _ in range(2000):
        length = generator.randrange(0, 80)
        read_purposes("".join(chr(generator.randrange(32, 300)) for _ in range(length)))
