from forecart import errors


def test_one_root_catches_them_all():
    raised = [value for value in vars(errors).values() if isinstance(value, type)]
    assert {error.__name__ for error in raised} == {
        "ForecartError",
        "ConfigError",
        "DataError",
        "ArtifactError",
        "SkewError",
        "StoreError",
        "StoreTimeoutError",
        "ConflictError",
        "GateError",
        "EngineError",
        "NotFoundError",
    }
    assert all(issubclass(error, errors.ForecartError) for error in raised)


def test_the_tree_in_the_docstring_is_the_tree():
    assert errors.__doc__ is not None
    for error in errors.ForecartError.__subclasses__():
        assert error.__name__ in errors.__doc__
