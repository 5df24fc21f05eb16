"""What is wrong with a project's use of django-baikal, found by trying it; nothing is changed.

``examine`` gives a ``Finding`` for each thing that was looked at. It knows nothing of printing.
"""

from __future__ import annotations

from django_baikal.doctor.examination import NAMES, examine
from django_baikal.doctor.findings import FAILED, PASSED, SKIPPED, Finding

__all__ = ["FAILED", "NAMES", "PASSED", "SKIPPED", "Finding", "examine"]
