"""What is set, as the system checks see it."""

from __future__ import annotations

from django.core import checks
from django.core.checks.registry import registry
from django.core.exceptions import ImproperlyConfigured

from django_baikal import conf
from django_baikal.doctor.case import Case
from django_baikal.doctor.findings import Failed
from django_baikal.performers import Runtime, key_stores

_CORRECT = "Correct that in your settings; manage.py check then says no more of it."
#: Warnings about what is not safe; in the other ones there may be nothing wrong.
_UNSAFE = {"django_baikal.W011", "django_baikal.W012"}
#: What other examinations look into: keys that cannot sign, times, and the certificate.
_ELSEWHERE = {f"django_baikal.{number}" for number in ("E002", "E004", "W003", "W010")}


def settings(case: Case) -> str:
    """Read the settings of the alias, and run our system checks of them."""
    try:
        case.config = conf.client_config(case.alias)
        case.runtime = Runtime(case.config)
        case.stores = key_stores(case.config)
    except ImproperlyConfigured as error:
        raise Failed(str(error), _CORRECT) from None
    found = _messages(case.alias)
    for message in found:
        if message.is_serious() or message.id in _UNSAFE:
            raise Failed(message.msg, message.hint or _CORRECT)
    cautions = "".join(f" But see: {message.msg}" for message in found)
    return f"They can be used, as client {case.config.client_id!r}.{cautions}"


def _messages(alias: str) -> list[checks.CheckMessage]:
    """Give what our checks say of ``alias``, or of the project as a whole; the worst first."""
    ours = (
        check
        for check in registry.get_checks(include_deployment_checks=False)
        if check.__module__.startswith("django_baikal.")
    )
    found = [message for check in ours for message in check(app_configs=None, databases=None)]
    # What is silenced was seen, and is meant so.
    mine = [
        message
        for message in found
        if (message.msg.startswith(f"BAIKAL[{alias!r}]") or not message.msg.startswith("BAIKAL["))
        and message.id not in _ELSEWHERE
        and not message.is_silenced()
    ]
    return sorted(mine, key=lambda message: -message.level)
