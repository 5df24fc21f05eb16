"""The admin of the signing keys: look at them, and rotate or revoke them by their own rules.

Rows are neither added, changed nor deleted here; what is done to them goes through
``django_baikal.keys``, needs a permission of its own, and is written to the admin's history.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import Error, models, router, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from django_baikal.exceptions import BaikalError, ConfigurationError, LostRace
from django_baikal.models import SigningKey

# django.setup() loads this module, in every process; what a page needs is loaded with the page.
if TYPE_CHECKING:
    from django_baikal.doctor import Finding
    from django_baikal.keys.operations import Keeper, Outcome
    from django_baikal.keys.overview import Overviews, Seal

    _ModelAdmin = admin.ModelAdmin[SigningKey]
else:
    _ModelAdmin = admin.ModelAdmin

#: How long the page of the doctor may take, in seconds; servers end a request after 30 or so.
EXAMINE_WITHIN = 20
_TEMPLATES = "admin/django_baikal/signingkey"


def _readable(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Let those see a page who may, and lead away from it where the rows cannot be read."""

    @wraps(view)
    def inner(
        self: SigningKeyAdmin, request: HttpRequest, *arguments: Any, **named: Any
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            self.overviews(request)
        except (BaikalError, Error) as error:
            self.message_user(request, _sentence(error), messages.ERROR)
            return redirect(f"{self.admin_site.name}:index")
        return view(self, request, *arguments, **named)

    # A transaction around it would be of no use after the database has failed.
    return transaction.non_atomic_requests(inner)


class RevokeForm(forms.Form):
    """What has to be said to revoke a key."""

    kid = forms.CharField(
        max_length=255,
        help_text="Type or paste the kid, to confirm that this is the key you mean.",
        widget=forms.TextInput(
            {"class": "vTextField", "autocomplete": "off", "spellcheck": "false"}
        ),
    )
    reason = forms.CharField(
        max_length=255,
        help_text="It is kept with the key, and in the history.",
        widget=forms.TextInput({"class": "vTextField"}),
    )

    def __init__(self, row: SigningKey, data: Any = None) -> None:
        super().__init__(data)
        self._kid = row.kid

    def clean_kid(self) -> str:
        """Accept the kid of the key alone."""
        kid: str = self.cleaned_data["kid"]
        if kid != self._kid:
            raise forms.ValidationError("This is not the kid of the key.")
        return kid


@admin.register(SigningKey)
class SigningKeyAdmin(_ModelAdmin):
    """The signing keys, to look at; and their rotation."""

    actions = None
    search_fields = ("kid",)
    list_per_page = 50
    # One query instead of two.
    show_full_result_count = False
    fieldsets: ClassVar[Any] = [
        (None, {"fields": ["whole_kid", ("ring", "state", "alg"), "events"]}),
        ("Where it comes from", {"fields": [("origin", "created", "created_by"), "note"]}),
        (
            "Times",
            {
                "fields": [
                    ("activates", "superseded"),
                    ("unpublished", "last_trusted"),
                    ("revoked", "revoke_reason"),
                ]
            },
        ),
        ("At rest", {"fields": [("at_rest", "private_half")]}),
        ("Public key", {"fields": ["jwk", "pem"]}),
    ]
    readonly_fields = (
        *("whole_kid", "ring", "state", "alg", "events", "origin", "created", "created_by", "note"),
        *("activates", "superseded", "unpublished", "last_trusted", "revoked", "revoke_reason"),
        *("at_rest", "private_half", "jwk", "pem"),
    )

    class Media:
        css: ClassVar[dict[str, tuple[str, ...]]] = {"all": ("django_baikal/admin.css",)}

    # -- who may what -----------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Keys are made by rotations."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Rows are sealed; nobody edits them."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Rows stay, so that no key comes back."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may do something may look as well."""
        may_act = self.may(request, "rotate") or self.may(request, "revoke")
        return may_act or super().has_view_permission(request, obj)

    def may(self, request: HttpRequest, verb: str) -> bool:
        """Tell whether the user may rotate, or revoke."""
        visitor: Any = request.user
        return bool(visitor.has_perm(f"{self.opts.app_label}.{verb}_{self.opts.model_name}"))

    # -- reading ----------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[SigningKey]:
        """Leave the private halves where they are, and say only whether they are there."""
        there = models.ExpressionWrapper(
            models.Q(private_envelope__isnull=False), output_field=models.BooleanField()
        )
        return super().get_queryset(request).defer("private_envelope").annotate(is_kept=there)

    def overviews(self, request: HttpRequest) -> Overviews:
        """Read every ring, once in a request; raise Tampered, or an Error of ``django.db``."""
        from django_baikal.keys.overview import overviews

        found: Overviews | None = getattr(request, "_baikal_overviews", None)
        if found is None:
            found = overviews(self.get_queryset(request))
            request._baikal_overviews = found  # type: ignore[attr-defined]
        return found

    def _with_told(self, request: HttpRequest, row: Any) -> Any:
        from django_baikal.keys.overview import Told

        row.overview = overview = self.overviews(request).rings.get(row.ring)
        row.told = overview.of(row) if overview else Told()
        row.times = overview.times(row) if overview else {}
        row.revocable = overview is not None and not overview.no_revocation(row)
        return row

    # -- the pages --------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """Add what may be done; each only by POST, or after it was confirmed."""
        name = f"{self.opts.app_label}_{self.opts.model_name}"

        def own(route: str, view: Callable[..., HttpResponse], verb: str) -> URLPattern:
            # What is done has a transaction of its own, and has to be told even if it fails.
            whole = transaction.non_atomic_requests(self.admin_site.admin_view(view))
            return path(route, whole, name=f"{name}_{verb}")

        return [
            own("rings/<slug:ring>/rotate/", require_POST(self.rotate_view), "rotate"),
            own("rings/<slug:ring>/promote/", require_POST(self.promote_view), "promote"),
            own("<path:object_id>/revoke/", self.revoke_view, "revoke"),
            own("doctor/", self.doctor_view, "doctor"),
            *super().get_urls(),
        ]

    @_readable
    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """List the keys below a picture of each ring."""
        found = self.overviews(request)
        chosen = found.rings.get(request.GET.get("ring", ""))
        context = {
            "title": "Signing keys",
            "overviews": [chosen] if chosen else list(found.rings.values()),
            "several": len(found.rings) > 1,
            "chosen": chosen,
            "trouble": found.trouble,
            "may_rotate": self.may(request, "rotate"),
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Put what there is to tell of each key into the rows of the page."""
        found = super().get_changelist_instance(request)
        for row in found.result_list:
            self._with_told(request, row)
        return found

    def get_list_display(self, request: HttpRequest) -> Any:
        """Offer to revoke a key to those who may."""
        shown = ["short_kid", "ring", "state", "alg", "age", "events", "at_rest"]
        return [*shown, "revoke"] if self.may(request, "revoke") else shown

    @_readable
    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show one key."""
        context = {
            "title": "Signing key",
            "trouble": self.overviews(request).trouble,
            "may_revoke": self.may(request, "revoke"),
        }
        return super().change_view(
            request, object_id, form_url, {**context, **(extra_context or {})}
        )

    @_readable
    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show what was done to one key."""
        return super().history_view(request, object_id, extra_context)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Nobody deletes a key."""
        raise PermissionDenied

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """Give a key, with what there is to tell of it."""
        row = super().get_object(request, object_id, from_field)
        return None if row is None else self._with_told(request, row)

    def _url(self, verb: str, *arguments: Any) -> str:
        name = f"{self.opts.app_label}_{self.opts.model_name}_{verb}"
        return reverse(f"{self.admin_site.name}:{name}", args=arguments)

    # -- what may be done -------------------------------------------------------------------------

    def rotate_view(self, request: HttpRequest, ring: str) -> HttpResponse:
        """See that a standby is there, which takes over in its turn."""
        outcome = self._done(request, "rotate", ring, lambda keeper: keeper.rotate())
        if outcome is not None and not outcome.created:
            self.message_user(request, "The standby is there already.", messages.INFO)
        return redirect(self._url("changelist"))

    def promote_view(self, request: HttpRequest, ring: str) -> HttpResponse:
        """Let the standby sign from now on."""
        self._done(request, "rotate", ring, lambda keeper: keeper.promote())
        return redirect(self._url("changelist"))

    @_readable
    def revoke_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Say what the revocation of a key means; do it, once that is confirmed."""
        if not self.may(request, "revoke"):
            raise PermissionDenied
        row = self.get_object(request, object_id)
        if row is None or row.overview is None:
            raise Http404("There is no such key.")
        if (why_not := row.overview.no_revocation(row)) != "":
            self.message_user(request, why_not, messages.WARNING)
            return redirect(self._url("change", row.pk))
        form = RevokeForm(row, request.POST if request.method == "POST" else None)
        if form.is_valid():
            reason = form.cleaned_data["reason"]
            self._done(
                request,
                "revoke",
                row.ring,
                lambda keeper: keeper.emergency(kid=row.kid, reason=reason),
            )
            return redirect(self._url("changelist"))
        context = {
            **self.admin_site.each_context(request),
            "title": "Revoke a signing key",
            "opts": self.opts,
            "original": row,
            "has_view_permission": True,
            "media": self.media,
            "form": form,
            "consequences": list(row.overview.consequences(row)),
            "back": self._url("change", row.pk),
        }
        return TemplateResponse(request, f"{_TEMPLATES}/revoke.html", context)

    def doctor_view(self, request: HttpRequest) -> HttpResponse:
        """Examine each alias as ``baikal_doctor`` does, when the button is pressed."""
        from django_baikal.doctor import FAILED, PASSED, SKIPPED

        if not self.has_view_permission(request):
            raise PermissionDenied
        examined: list[tuple[str, list[Finding]]] = []
        trouble = ""
        if request.method == "POST":
            try:
                examined = _examined(time.monotonic() + EXAMINE_WITHIN)
            except ConfigurationError as error:
                trouble = str(error)
        statuses = [finding.status for _, findings in examined for finding in findings]
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "title": "Find what is wrong",
            "opts": self.opts,
            "media": self.media,
            "seconds": EXAMINE_WITHIN,
            "examined": examined,
            "totals": [(statuses.count(status), status) for status in (PASSED, FAILED, SKIPPED)],
            "trouble": trouble,
        }
        return TemplateResponse(request, f"{_TEMPLATES}/doctor.html", context)

    def _done(
        self,
        request: HttpRequest,
        verb: str,
        ring: str,
        operation: Callable[[Keeper], Outcome],
    ) -> Outcome | None:
        """Do it to a ring, and tell what came of it; None if nothing did."""
        from django_baikal.keys.operations import keepers

        if not self.may(request, verb):
            raise PermissionDenied
        try:
            keeper = keepers(by=request.user.get_username()[:150]).get(ring)
            if keeper is None:
                raise BaikalError(f"No alias of BAIKAL keeps the ring {ring!r}.")
            outcome = operation(keeper)
        except LostRace as error:
            self.message_user(request, f"Nothing was changed: {error}", messages.WARNING)
            return None
        except (BaikalError, Error) as error:
            self.message_user(request, _sentence(error), messages.ERROR)
            return None
        self._record(request, outcome)
        return outcome

    def _record(self, request: HttpRequest, outcome: Outcome) -> None:
        """Tell what was done, and write it to the history."""
        from django.contrib.admin.models import LogEntry
        from django.contrib.contenttypes.models import ContentType

        made = [(row, self.log_addition, _made(row)) for row in outcome.created]
        changed = [(row, self.log_change, _changed(row)) for row in outcome.changed]
        for row, _, sentence in (*changed, *made):
            self.message_user(request, f"Key {row.kid}: {sentence}", messages.SUCCESS)
        try:
            # Read before: SQLite lets nobody write who has read while another one wrote.
            ContentType.objects.get_for_model(SigningKey, for_concrete_model=False)
            with transaction.atomic(using=router.db_for_write(LogEntry)):
                for row, log, sentence in (*made, *changed):
                    log(request, row, sentence)
        except Error as error:
            kind = type(error).__name__
            self.message_user(
                request, f"It could not be written to the history ({kind}).", messages.WARNING
            )

    # -- the columns and fields -------------------------------------------------------------------

    @admin.display(description="kid", ordering="kid")
    def short_kid(self, row: SigningKey) -> SafeString:
        """Show the kid, which the style sheet cuts short; whoever copies it gets all of it."""
        return format_html('<code class="baikal-kid" title="{}">{}</code>', row.kid, row.kid)

    @admin.display(description="kid")
    def whole_kid(self, row: SigningKey) -> SafeString:
        """Show the whole kid, to be copied."""
        return format_html('<code class="baikal-copy">{}</code>', row.kid)

    @admin.display(description="state")
    def state(self, row: Any) -> SafeString:
        """Show the state as a word and a shape, for whoever sees no colours."""
        from django_baikal.keys.rotation import ACTIVE, PENDING, RETIRED, RETIRING, REVOKED

        shapes = {PENDING: "○", ACTIVE: "●", RETIRING: "◐", RETIRED: "◌", REVOKED: "✕"}
        return format_html(
            '<span class="baikal-state baikal-{}"><span aria-hidden="true">{}</span> {}</span>',
            row.told.state,
            shapes.get(row.told.state, "?"),
            row.told.state,
        )

    @admin.display(description="age", ordering="-created_at")
    def age(self, row: Any) -> str:
        """Show how long ago the key was made."""
        return str(row.told.age)

    @admin.display(description="what comes next")
    def events(self, row: Any) -> SafeString:
        """Show what comes next, and until when the key is trusted."""
        each = ((event,) for event in row.told.events)
        return format_html_join("", '<div class="baikal-event">{}</div>', each)

    @admin.display(description="seal")
    def at_rest(self, row: Any) -> SafeString:
        """Show whether the row is as it was written, and under which key-encryption key."""
        from django_baikal.keys.overview import GOOD, MISSING, TAMPERED

        seal: Seal = row.told.seal
        words = {GOOD: "✓ good", MISSING: "✕ key missing", TAMPERED: "✕ TAMPERED WITH"}
        key = ""
        if seal.encryption_key:
            shown = '<code class="baikal-kek" title="its key-encryption key">{}</code>'
            key = format_html(shown, seal.encryption_key)
        return format_html(
            '<span class="baikal-seal-{}">{}</span> {}',
            seal.state,
            words.get(seal.state, "? not checked"),
            key,
        )

    @admin.display(description="")
    def revoke(self, row: Any) -> SafeString | str:
        """Lead to the page that revokes a key."""
        if not row.revocable:
            return ""
        return format_html('<a href="{}">Revoke…</a>', self._url("revoke", row.pk))

    @admin.display(description="private half")
    def private_half(self, row: Any) -> str:
        """Say whether there is a private half; what it is, nobody is shown."""
        return "kept, encrypted" if row.is_kept else "wiped"

    @admin.display(description="created")
    def created(self, row: SigningKey) -> str:
        """Show when the key was made, and published."""
        return _moment(row.created_at)

    @admin.display(description="signs from")
    def activates(self, row: SigningKey) -> str:
        """Show when the key's turn is."""
        return _moment(row.activates_at)

    @admin.display(description="signs until")
    def superseded(self, row: Any) -> str:
        """Show when another key takes over."""
        return _moment(row.times.get("superseded_at"))

    @admin.display(description="leaves the JWK Set")
    def unpublished(self, row: Any) -> str:
        """Show when the key leaves the JWK Set on schedule."""
        return _moment(row.times.get("unpublish_at"))

    @admin.display(description="last trusted")
    def last_trusted(self, row: Any) -> str:
        """Show when the last cache forgets the key."""
        return _moment(row.times.get("last_trusted"))

    @admin.display(description="revoked")
    def revoked(self, row: SigningKey) -> str:
        """Show when the key was revoked."""
        return _moment(row.revoked_at)

    @admin.display(description="JWK")
    def jwk(self, row: SigningKey) -> SafeString | str:
        """Show the public key as it is published."""
        return _copyable("The public key as a JWK", lambda: json.dumps(_published(row), indent=2))

    @admin.display(description="PEM")
    def pem(self, row: SigningKey) -> SafeString | str:
        """Show the public key as SPKI in PEM."""
        from django_baikal.keys.export import public_pem

        return _copyable("The public key as PEM", lambda: public_pem(_published(row), row.alg))


def _examined(deadline: float) -> list[tuple[str, list[Finding]]]:
    from django_baikal import conf
    from django_baikal.doctor import examine

    return [
        (alias, [*examine(alias, seconds=max(deadline - time.monotonic(), 0))])
        for alias in conf.aliases()
    ]


def _published(row: SigningKey) -> dict[str, Any]:
    from django_baikal.protocol.jwk import public_jwk

    return public_jwk({**row.jwk, "kid": row.kid, "use": "sig", "alg": row.alg})


def _copyable(name: str, make: Callable[[], str]) -> SafeString | str:
    from django_baikal.keys.overview import NOT_A_ROW

    try:
        text = make()
    except (BaikalError, KeyError, *NOT_A_ROW):
        return "It is of a kind that is not known here."
    area = '<textarea class="baikal-public" readonly aria-label="{}" rows="{}">{}</textarea>'
    return format_html(area, name, text.rstrip().count("\n") + 2, text)


def _moment(value: Any) -> str:
    from django_baikal.keys.overview import told

    return told(value) if isinstance(value, datetime) else "-"


def _sentence(error: Exception) -> str:
    # What the database says may tell where it is.
    said = f"The database failed ({type(error).__name__})."
    return str(error) if isinstance(error, BaikalError) else said


def _made(row: SigningKey) -> str:
    return f"Made; it signs from {_moment(row.activates_at)}."


def _changed(row: SigningKey) -> str:
    if row.revoked_at is not None:
        return f"Revoked: {row.revoke_reason}"
    return f"Promoted; it signs from {_moment(row.activates_at)}."
