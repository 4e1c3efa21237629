"""The errors of fxeval.

Every error that a user can cause is one of these; anything else is a bug in fxeval.

* FxevalError
    * SuiteError              a suite file is wrong: always carries ``file:line:column``
    * ContractError           a subject broke its promise
        * ModelContractError      ... a face model or its weights
        * ExplainerContractError  ... an explainer or its maps
        * DataContractError       ... a pair list, an image, a landmark file
    * UnsupportedError        an explainer cannot explain this kind of model: nobody's mistake
    * EvidenceError           nothing can be concluded: a control is missing, a metric is unfit
    * StoreError              a record cannot be written or read

A message says where, what was expected, what came, and what to do.
"""


class FxevalError(Exception):
    """Base of every error that fxeval raises on purpose."""


class SuiteError(FxevalError):
    """A suite file is wrong; the message holds every fault with its ``file:line:column``."""


class ContractError(FxevalError):
    """A subject (model, explainer, data) broke its promise."""


class ModelContractError(ContractError):
    """A face model or its weights cannot be trusted."""


class ExplainerContractError(ContractError):
    """An explainer returned something that is not a set of saliency maps."""


class DataContractError(ContractError):
    """A pair list, image or landmark file cannot be used."""


class UnsupportedError(FxevalError):
    """An explainer cannot explain this kind of model; nobody made a mistake."""


class EvidenceError(FxevalError):
    """Nothing can be concluded: a control is missing or a metric is unfit."""


class StoreError(FxevalError):
    """A record cannot be written or read."""
