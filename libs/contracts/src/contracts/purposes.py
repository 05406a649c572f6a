"""What personal values are kept for beside the business relation itself: each purpose has a key of its own per subject.

What names no purpose is of the relation: who the customer is, accounts, postings. It is kept longest.
"""

from typing import Final

CONTACT: Final = "contact"
"""联系方式: how a person is reached."""
