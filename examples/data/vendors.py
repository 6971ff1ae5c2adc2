"""The books of a made-up shop, and the look-up in them that examples/catalogue.toml gives to the model."""

from __future__ import annotations

from rapidfuzz import fuzz, process, utils

VENDORS = {
    "Acme GmbH": "V-0017",
    "Müller & Söhne KG": "V-0031",
    "Globex Corporation": "V-0042",
    "Initech Supplies Ltd": "V-0058",
}
ALIKE = 80
"""Names less alike than this, of 100, are different vendors."""


def find_vendor(name: str) -> dict[str, str] | None:
    """Finds a vendor in the books, whatever the spelling. Gives null where there is none.

    Args:
        name: The vendor's name as it is printed.
    """
    found = process.extractOne(
        name, list(VENDORS), scorer=fuzz.WRatio, processor=utils.default_process, score_cutoff=ALIKE
    )
    return None if found is None else {"vendor_id": VENDORS[found[0]], "vendor_name": found[0]}
