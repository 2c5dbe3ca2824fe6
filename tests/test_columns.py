from forecart import columns


def test_codes_of_event_types_are_frozen():
    assert columns.EVENT_TYPE_CODES == {
        "page_visit": 1,
        "view_category": 2,
        "view": 3,
        "search": 4,
        "add_to_cart": 5,
        "checkout": 6,
        "signup": 7,
        "lead": 8,
        "custom": 9,
    }


def test_no_two_constants_name_one_column():
    names = [value for key, value in vars(columns).items() if key.isupper() and isinstance(value, str)]
    assert len(names) == len(set(names))
