"""The errors of fxeval.

Every error that a user can cause is one of these; anything else is a bug in fxeval.

* FxevalError
    * SuiteError              a suite file is wrong: always carries ``file:line:column``
    * ContractError           a subject breaks the contract
        * ModelContractError      ... a face model or its weights
            * UnansweredError         ... a service did not answer; later it may
        * ExplainerContractError  ... an explainer or its maps
        * DataContractError       ... a pair list, an image, a landmark file
        * FillContractError       ... a fill of a plug-in
    * UserCodeError           user code failed in a process of its own
    * UnsupportedError        an explainer cannot explain this kind of model: nobody's mistake
    * EvidenceError           nothing can be concluded: a control is missing, a metric is unfit
    * StoreError              a record cannot be written or read

A message says where, what was expected, what was found, and what to do. All of that is the
``detail``, which is printed for the person who runs. Records are passed on to others, and quote
only ``public``.
"""

from fxeval.redaction import in_one_line, without_paths

_DATA = "the data cannot be used; the output of the run says why"


class FxevalError(Exception):
    """Base of every error that fxeval raises on purpose.

    Args:
        detail: The whole message.
        public: The part that may appear in a record: bare names of files and lists with lines,
            counts, what was expected; no person, no image, no absolute path. None = the detail in
            one line, without excerpts of files and without folders; nothing of it for an error
            about data.

    >>> error = FxevalError("/srv/Ann Lee/lfw.txt:3: got 'Ann 1'", public="lfw.txt:3: a bad line")
    >>> error.public, error.detail
    ('lfw.txt:3: a bad line', "/srv/Ann Lee/lfw.txt:3: got 'Ann 1'")
    """

    # A class attribute, so that a subclass in user code that skips this __init__ has it, too.
    _public: str | None = None

    def __init__(self, detail: str = "", *, public: str | None = None) -> None:
        super().__init__(detail)
        self._public = public

    @property
    def detail(self) -> str:
        """The whole message, printed for the person who runs."""
        return str(self)

    @property
    def public(self) -> str:
        """The part that may appear in a record."""
        return in_one_line(self.detail) if self._public is None else self._public


class SuiteError(FxevalError):
    """A suite file is wrong; the message holds every fault with its ``file:line:column``."""


class ContractError(FxevalError):
    """A subject (model, explainer, data) breaks the contract."""


class ModelContractError(ContractError):
    """A face model or its weights cannot be trusted."""


class UnansweredError(ModelContractError):
    """A face model that is a service did not answer, even after repeats; later it may."""


class ExplainerContractError(ContractError):
    """An explainer returned something that is not a set of saliency maps."""


class DataContractError(ContractError):
    """A pair list, image or landmark file cannot be used; the message may name people."""

    @property
    def public(self) -> str:
        """The part that may appear in a record: a fixed sentence unless ``public`` was given."""
        return _DATA if self._public is None else self._public


class FillContractError(ContractError):
    """A fill of a plug-in raised an error, or returned images that are not filled images."""


class UnsupportedError(FxevalError):
    """An explainer cannot explain this kind of model; nobody made a mistake."""


class UserCodeError(FxevalError):
    """User code failed in a process of its own.

    Args:
        detail: The whole message.
        public: The part that may appear in a record; see :class:`FxevalError`.
        state: The state of the rows that it was asked for (``fxeval.results.RowState``).
    """

    def __init__(
        self, detail: str = "", *, public: str | None = None, state: str = "explainer_raised"
    ) -> None:
        super().__init__(detail, public=public)
        self.state = state


class EvidenceError(FxevalError):
    """Nothing can be concluded: a control is missing or a metric is unfit."""


class StoreError(FxevalError):
    """A record cannot be written or read."""


def for_a_record(error: FxevalError) -> str:
    """Return what a record says about one of fxeval's own errors.

    >>> for_a_record(ModelContractError("/srv/Ann Lee/net.pt: expected weights, got text."))
    'net.pt: expected weights, got text.'
    >>> for_a_record(DataContractError("pairs 'lfw': the image of Ann Lee has no landmarks."))
    'the data cannot be used; the output of the run says why'
    """
    return without_paths(error.public)
