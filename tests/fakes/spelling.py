"""Error codes: the two spellings of each, and their usual words."""

from __future__ import annotations

USUAL: dict[int, tuple[str, str]] = {
    400: ("invalid_parameter_error", "A parameter is not valid."),
    401: ("invalid_api_key", "Incorrect API key provided."),
    403: ("AccessDenied.Unpurchased", "Access denied."),
    404: ("model_not_found", "The model does not exist or you do not have access to it."),
    429: ("limit_requests", "You exceeded your current requests list."),
    500: ("internal_error", "An internal error has occurred, please try again later."),
    503: ("ServiceUnavailable", "The service is busy."),
}
"""The compat code and the words of a status, where nothing else is said."""

_NATIVE = {
    "invalid_parameter_error": "InvalidParameter",
    "invalid_request_error": "InvalidParameter",
    "invalid_api_key": "InvalidApiKey",
    "model_not_found": "ModelNotFound",
    "limit_requests": "Throttling.RateQuota",
    "limit_burst_rate": "Throttling.BurstRate",
    "insufficient_quota": "Throttling.AllocationQuota",
    "data_inspection_failed": "DataInspectionFailed",
    "internal_error": "InternalError",
}


def native_code(code: str) -> str:
    """The native spelling of a compat code; another code as it is."""
    return _NATIVE.get(code, code)
