"""Every error a caller of forecart can meet.

    ForecartError
    ├── ConfigError      the configuration breaks a rule
    ├── DataError        the input data breaks a rule
    ├── ArtifactError    a file of a run is missing, damaged or of another run
    │   └── SkewError    parts of two releases, or of two embedding spaces, meet
    ├── StoreError       a store (of user records, of objects) is down or answers what makes no sense
    │   └── StoreTimeoutError  it did not answer in time
    ├── ConflictError    another publisher is at work, or was faster
    ├── GateError        a release is worse than the quality gate allows
    ├── EngineError      workers died again and again, or there are none
    └── NotFoundError    an id or a name that was asked for does not exist

A message states the rule, what arrived and what to do, in one line: the command line prints it as it is
and exits with 2, without a traceback.
"""


class ForecartError(Exception):
    """The root of every error that forecart raises on purpose."""


class ConfigError(ForecartError):
    """The configuration breaks a rule."""


class DataError(ForecartError):
    """The input data breaks a rule."""


class ArtifactError(ForecartError):
    """A file of a run is missing, damaged, or belongs to another run."""


class SkewError(ArtifactError):
    """Parts of two releases, or of two embedding spaces, meet: neither may be served with the other."""


class StoreError(ForecartError):
    """The store of user records, or of objects, is down, too slow, or answers what makes no sense."""


class StoreTimeoutError(StoreError):
    """The store of user records did not answer in time."""


class ConflictError(ForecartError):
    """Another publisher is at work, or was faster."""


class GateError(ForecartError):
    """A release is worse than the quality gate allows."""


class EngineError(ForecartError):
    """Workers died again and again under a task, or there are none."""


class NotFoundError(ForecartError):
    """Something that was asked for by id or by name does not exist."""
