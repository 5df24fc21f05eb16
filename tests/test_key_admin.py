"""The admin of the signing keys: who may look, who may act, and what is told of both."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from admin_stage import project, user
from django.apps import apps
from django.contrib import admin
from django.core import checks
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import resolve
from keys_stage import Clock, aliases, everything, keeper, rows
from material import assert_tells_nothing, ec_key, rsa_key
from ring_stage import KEKS, TABLE, database_down, edit, meanwhile

from django_baikal.keys.export import public_pem
from django_baikal.keys.overview import overviews, told
from django_baikal.keys.policy import material
from django_baikal.keys.timeline import bar, window
from django_baikal.models import SigningKey

pytestmark = pytest.mark.django_db
LIST = "/admin/django_baikal/signingkey/"
ROTATE, PROMOTE = f"{LIST}rings/default/rotate/", f"{LIST}rings/default/promote/"
ALL = ("view", "rotate", "revoke")
REASON = "a laptop was lost"


@pytest.fixture(scope="module", autouse=True)
def _project(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), project():
        yield


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def ring(clock: Clock) -> Clock:
    """Have a ring with a key that signs, and a standby that everybody knows."""
    keeper().rotate()
    clock.pass_(days=1)
    return clock


def client(*permissions: str, strict: bool = False, **fields: Any) -> Client:
    """Be somebody who may do that; ``strict``: as a browser, whose forms need a token."""
    made = Client(enforce_csrf_checks=strict)
    made.force_login(user(*permissions, **fields))
    return made


def page(of: Client, path: str = LIST, **asked: Any) -> str:
    answer = of.get(path, **asked)
    assert answer.status_code == 200
    return answer.content.decode()


def words(text: str) -> str:
    """Give what a reader sees of a page, or hears."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def said(of: Client, path: str, data: Any = None) -> list[str]:
    """Post to a page that leads elsewhere; give the messages that are shown there."""
    answer = of.post(path, data or {}, follow=True)
    assert answer.redirect_chain and answer.status_code == 200
    found = re.findall(r"<li[^>]* class=\"(\w+)\">(.*?)</li>", answer.content.decode())
    return [f"{level}: {html.unescape(text)}" for level, text in found if level in LEVELS]


LEVELS = ("info", "success", "warning", "error")


def at(row: SigningKey, verb: str) -> str:
    return f"{LIST}{row.pk}/{verb}/"


def confirmed(row: SigningKey, **changes: str) -> dict[str, str]:
    return {"kid": row.kid, "reason": REASON, **changes}


def history() -> list[tuple[str, str, str]]:
    """Give who did what to which key, according to the admin's history."""
    entries = apps.get_model("admin", "LogEntry").objects.order_by("pk")
    return [(e.user.username, e.object_repr, e.get_change_message()) for e in entries]


def buttons(text: str) -> dict[str, tuple[bool, str]]:
    """Give each button of a ring: whether it can be pressed, and what stands beside it."""
    found = re.findall(
        r'<button[^>]*aria-describedby="([\w-]+)"( disabled)?>(.*?)</button>\s*'
        r'<span id="([\w-]+)">(.*?)</span>',
        text,
    )
    assert all(described == name for described, _, _, name, _ in found)
    return {label: (not disabled, html.unescape(why)) for _, disabled, label, _, why in found}


# -- who may what ----------------------------------------------------------------------------------


def everywhere(row: SigningKey) -> list[tuple[str, str]]:
    reading = [LIST, at(row, "change"), at(row, "history"), at(row, "revoke")]
    acting = [ROTATE, PROMOTE, at(row, "revoke")]
    return [*(("get", path) for path in reading), *(("post", path) for path in acting)]


@pytest.mark.parametrize("permissions", [(), ("add", "delete")])
def test_whoever_has_no_permission_sees_and_does_nothing(ring, permissions):
    visitor, row, before = client(*permissions), rows()[0], everything()
    for method, path in everywhere(row):
        answer = getattr(visitor, method)(path, confirmed(row))
        assert answer.status_code == 403, path
    if not permissions:
        assert "Signing keys" not in page(visitor, "/admin/")
    assert everything() == before


def test_whoever_is_not_logged_in_is_asked_to(ring):
    row, before = rows()[0], everything()
    for method, path in everywhere(row):
        answer = getattr(Client(), method)(path, confirmed(row))
        assert answer.status_code == 302 and answer["Location"].startswith("/admin/login/")
    assert everything() == before


@pytest.mark.parametrize("permissions", [("view",), ("change",)])
def test_whoever_may_look_may_do_nothing(ring, permissions):
    visitor, row, before = client(*permissions), rows()[0], everything()
    shown = page(visitor) + page(visitor, at(row, "change")) + page(visitor, at(row, "history"))
    assert not buttons(shown) and "Revoke…" not in shown
    assert visitor.get(at(row, "revoke")).status_code == 403
    for path in (ROTATE, PROMOTE, at(row, "revoke")):
        assert visitor.post(path, confirmed(row)).status_code == 403
    assert everything() == before


def test_each_permission_is_for_what_it_names_and_for_looking(ring):
    row = rows()[0]
    rotates, revokes = client("rotate", name="ro"), client("revoke", name="re")
    assert set(buttons(page(rotates))) == {"Schedule rotation", "Promote standby"}
    assert "Revoke…" not in page(rotates) + page(rotates, at(row, "change"))
    assert rotates.post(at(row, "revoke"), confirmed(row)).status_code == 403
    assert not buttons(page(revokes))
    assert at(row, "revoke") in page(revokes) and at(row, "revoke") in page(
        revokes, at(row, "change")
    )
    assert [revokes.post(path).status_code for path in (ROTATE, PROMOTE)] == [403, 403]


def test_not_even_a_superuser_adds_changes_or_deletes_a_key(ring):
    root, row, before = client(is_superuser=True), rows()[0], everything()
    assert "Save" not in page(root, at(row, "change"))
    assert "delete_selected" not in page(root)
    for path in (f"{LIST}add/", at(row, "delete")):
        assert root.get(path).status_code == 403
        assert root.post(path, {"post": "yes"}).status_code == 403
    assert root.post(at(row, "change"), {"ring": "other"}).status_code == 403
    deleting = {"action": "delete_selected", "_selected_action": row.pk, "post": "yes"}
    assert root.post(LIST, deleting).status_code in (200, 302, 403)
    assert everything() == before


def test_nothing_is_changed_by_looking(ring):
    visitor, row, before = client(*ALL), rows()[0], everything()
    for path in (LIST, at(row, "change"), at(row, "history"), at(row, "revoke")):
        page(visitor, path)
        page(visitor, path, data=confirmed(row) if path.endswith("revoke/") else {})
    for path in (ROTATE, PROMOTE):
        assert visitor.get(path).status_code == 405
    assert everything() == before and history() == []


def test_without_the_token_of_a_form_nothing_is_changed(ring):
    visitor, row = client(*ALL, strict=True), rows()[0]
    before = everything()
    for path in (ROTATE, PROMOTE, at(row, "revoke")):
        assert visitor.post(path, confirmed(row)).status_code == 403
    assert everything() == before
    token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', page(visitor))
    assert token is not None
    assert visitor.post(PROMOTE, {"csrfmiddlewaretoken": token[1]}).status_code == 302
    assert everything() != before


# -- looking ---------------------------------------------------------------------------------------


def test_the_list_tells_each_key_in_words_and_shapes(ring):
    keeper().promote()
    keeper().rotate()
    first, second, third = rows()
    shown = page(client(*ALL))
    seen = words(shown)
    for row, shape, state in (
        (first, "◐", "retiring"),
        (second, "●", "active"),
        (third, "○", "pe"),
    ):
        assert f'title="{row.kid}">{row.kid}</code>' in shown
        assert f"{shape} {state}" in seen
    assert "leaves the JWK Set 2030-01-03 12:00 UTC (in 1 day)" in seen
    # + JWKS_MAX_AGE + JWKS_STALE_IF_ERROR
    assert "last trusted 2030-01-03 13:15 UTC (in 1 day 1 hour)" in seen
    assert "signs from 2030-01-09 12:00 UTC (in 7 days)" in seen
    assert "signs until 2030-01-09 12:00 UTC (in 7 days)" in seen
    name = keeper().options.encryption_keys.current.name
    assert seen.count(f"✓ good {name}") == 3
    assert "Ring default" in seen and seen.count("ES256") >= 3


def test_the_ends_of_keys_are_told(ring):
    keeper().revoke(rows()[1].kid, reason=REASON)
    seen = words(page(client(*ALL)))
    assert "revoked 2030-01-02 12:00 UTC (less than a minute ago)" in seen
    assert "✕ revoked" in seen
    assert "signs until another key follows, and none is there" in seen
    keeper().rotate()
    ring.pass_(days=20)
    seen = words(page(client(*ALL, name="bob")))
    assert (
        "◌ retired" in seen and "last trusted 2030-01-09 13:13 UTC (12 days 23 hours ago)" in seen
    )


def test_the_picture_needs_no_colours_no_script_and_no_eyes(ring):
    keeper().promote()
    keeper().rotate()
    shown = page(client("view"))
    picture = shown[shown.index('<svg class="baikal-timeline"') : shown.index("baikal-legend")]
    assert 'role="img"' in picture and "<script" not in picture and "style=" not in picture
    title, text = re.findall(r'aria-(?:labelledby|describedby)="([\w-]+)"', picture)
    assert f'<title id="{title}">Timeline of the ring default</title>' in picture
    heard = picture.partition(f'<desc id="{text}">')[2].partition("</desc>")[0]
    assert heard.startswith("It is 2030-01-02 12:00 UTC. Key ")
    assert "signs from 2030-01-09 12:00 UTC with no end yet." in heard
    assert "retiring from 2030-01-02 12:00 UTC until 2030-01-03 12:00 UTC;" in heard
    assert "in caches from 2030-01-03 12:00 UTC until 2030-01-03 13:15 UTC." in heard
    # Each phase has a look of its own: empty, full, hatched, dotted.
    assert 'class="baikal-published"' in picture and 'fill="none"' in picture
    assert 'class="baikal-signs"' in picture and 'fill="url(#baikal-hatch-1)"' in picture
    assert 'stroke-dasharray="2 2"' in picture
    assert ">now</text>" in picture
    # Whatever style sheets and schemes do, there is a colour for everything.
    assert set(re.findall(r'(?:stroke|fill)="(.*?)"', picture)) == {
        *("currentColor", "none", "url(#baikal-hatch-1)")
    }


def test_now_is_written_where_there_is_room_for_it(ring):
    for length, anchor in ((0, "start"), (40, "end")):
        ring.pass_(days=length)
        assert f'text-anchor="{anchor}">now' in page(client("view", name=anchor))


def test_the_style_sheet_uses_the_colours_of_the_admin_which_has_a_dark_mode():
    from django.contrib.staticfiles import finders

    path = finders.find("django_baikal/admin.css")
    with open(path, encoding="utf-8") as file:
        sheet = file.read()
    assert "var(--body-fg)" in sheet
    assert not re.search(r"#[0-9a-f]{3,6}\b|rgb|hsl", sheet)


def test_a_ring_without_keys_has_a_button_to_make_them(clock):
    shown = page(client(*ALL))
    assert "There is no key that anybody trusts." in shown
    assert buttons(shown) == {
        "Schedule rotation": (
            True,
            "Makes the standby: it is published now, and signs in its turn.",
        ),
        "Promote standby": (False, "There is no standby: schedule a rotation first."),
    }


def test_several_rings_are_shown_together_or_alone(ring):
    with override_settings(BAIKAL=aliases(default={}, eu={"RING": "eu"})):
        keeper("eu").rotate()
        visitor = client(*ALL)
        both, alone = page(visitor), page(visitor, f"{LIST}?ring=eu")
        assert "Show only the ring eu" in both and "Show every ring" in alone
        assert "Ring default" in both and "Ring default" not in alone
        assert rows()[0].kid in both and rows()[0].kid not in alone
        assert rows("eu")[0].kid in both and rows("eu")[0].kid in alone
        assert page(visitor, f"{LIST}?ring=none").count("Ring ") == 2


def test_a_key_is_found_by_a_part_of_its_kid(ring):
    first, second = rows()
    shown = page(client("view"), f"{LIST}?q={first.kid[:12]}")
    table = shown[shown.index('id="result_list"') :]
    assert first.kid in table and second.kid not in table


def asked_of_keys(of: Client, path: str) -> list[str]:
    with CaptureQueriesContext(connection) as asked:
        page(of, path)
    return [query["sql"] for query in asked if TABLE in query["sql"]]


def test_three_queries_are_enough_for_a_list_however_long(ring):
    visitor = client(*ALL)
    page(visitor)
    with CaptureQueriesContext(connection) as few:
        page(visitor)
    assert len([query for query in few if "auth_" not in query["sql"]]) == 3
    for _ in range(6):
        ring.pass_(days=7)
        keeper().rotate()
    for path in (LIST, f"{LIST}?ring=default", f"{LIST}?q=a&o=1"):
        asked = asked_of_keys(visitor, path)
        assert len(asked) == 3
        # The private halves stay where they are.
        assert not [sql for sql in asked if re.search(r'"private_envelope"(?! IS NOT NULL)', sql)]
    assert len(asked_of_keys(visitor, at(rows()[0], "change"))) == 2


def test_the_page_of_a_key_has_all_that_is_public(ring):
    keeper().emergency(kid=rows()[0].kid, reason=REASON)
    revoked, active, _ = rows()
    visitor = client(*ALL)
    shown = words(page(visitor, at(revoked, "change")))
    for text in (revoked.kid, "✕ revoked", REASON, "2030-01-02 12:00 UTC", "a test", "wiped"):
        assert text in shown
    shown = html.unescape(page(visitor, at(active, "change")))
    jwk = {**active.jwk, "kid": active.kid, "use": "sig", "alg": "ES256"}
    first, second = re.findall(r"<textarea[^>]* readonly[^>]*>(.*?)</textarea>", shown, re.DOTALL)
    assert json.loads(first) == jwk
    assert second == public_pem(jwk, "ES256")
    assert "kept, encrypted" in shown and "generated" in shown


def test_a_key_that_is_not_there_leads_away(ring):
    visitor = client(*ALL)
    assert visitor.get(f"{LIST}4711/change/").status_code == 302
    assert visitor.get(f"{LIST}4711/revoke/").status_code == 404
    assert visitor.get(f"{LIST}x/revoke/").status_code == 404


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_no_page_tells_anything_private(clock, alg, capsys):
    key = {"RS256": rsa_key(), "ES256": ec_key()}[alg]
    keeper().import_key(material(key, alg=alg))
    row, visitor = rows()[0], client(*ALL)
    # Somebody who can write to the table has put the private half where the public one is.
    private = material(key, alg=alg).private_key.private_numbers()
    told = dict(row.jwk, d=f"{getattr(private, 'd', 0) or getattr(private, 'private_value', 0):x}")
    for jwk in (row.public_jwk, json.dumps(told)):
        edit(row, public_jwk=jwk)
        seen = [page(visitor, path) for path in (LIST, at(row, "change"), at(row, "history"))]
        edit(row, public_jwk=row.public_jwk)
        seen.append(page(visitor, at(row, "revoke")))
        pem = public_pem({**row.jwk, "alg": alg}, alg)
        text = html.unescape("\n".join(seen))
        assert pem in text
        assert_tells_nothing(text.replace(pem, ""), key)
        for kept in (row.envelope.hex(), str(row.envelope), bytes(row.seal).hex()[10:]):
            assert kept[:40] not in text
    assert said(visitor, at(row, "revoke"), confirmed(row))
    assert_tells_nothing(page(visitor) + str(history()), key)
    call_command("dumpdata", "django_baikal", "admin", "auth")
    assert_tells_nothing(capsys.readouterr().out, key)


# -- acting ----------------------------------------------------------------------------------------


def test_a_rotation_is_scheduled_and_written_to_the_history(clock):
    visitor = client("rotate")
    answer = said(visitor, ROTATE)
    first, second = rows()
    assert answer == [
        f"success: Key {first.kid}: Made; it signs from 2030-01-01 11:58 UTC.",
        f"success: Key {second.kid}: Made; it signs from 2030-01-08 11:58 UTC.",
    ]
    assert [row.created_by for row in (first, second)] == ["ada", "ada"]
    assert history() == [
        ("ada", str(first), "Made; it signs from 2030-01-01 11:58 UTC."),
        ("ada", str(second), "Made; it signs from 2030-01-08 11:58 UTC."),
    ]
    before = everything()
    assert said(visitor, ROTATE) == ["info: The standby is there already."]
    assert everything() == before and len(history()) == 2
    assert "Made; it signs from" in words(page(visitor, at(first, "history")))


def test_a_ring_whose_active_key_is_gone_gets_another_by_a_rotation(ring):
    active, standby = rows()
    keeper()._revoke(active, ring.now, "lost")
    visitor = client("rotate")
    assert buttons(page(visitor))["Schedule rotation"][0]
    promoted, made = said(visitor, ROTATE)
    assert promoted.startswith(f"success: Key {standby.kid}: Promoted; it signs from ")
    assert made.startswith(f"success: Key {rows()[2].kid}: Made; it signs from ")
    assert keeper().store.signing_key().kid == standby.kid


def test_a_standby_that_everybody_knows_is_promoted(ring):
    visitor, standby = client("rotate"), rows()[1]
    assert buttons(page(visitor))["Promote standby"] == (
        True,
        "Lets the standby sign from now on, before its turn.",
    )
    told = "Promoted; it signs from 2030-01-02 12:00 UTC."
    assert said(visitor, PROMOTE) == [f"success: Key {standby.kid}: {told}"]
    assert keeper().store.signing_key().kid == standby.kid
    assert history() == [("ada", str(standby), told)]


def test_a_standby_that_somebody_may_not_know_is_not_promoted(clock):
    keeper().rotate()
    clock.pass_(hours=3)
    visitor, before = client("rotate"), everything()
    pressable, why = buttons(page(visitor))["Promote standby"]
    assert not pressable
    assert why == (
        "Possible from 2030-01-01 15:35 UTC (in 36 minutes): until then somebody may hold a JWK "
        "Set without it."
    )
    (answer,) = said(visitor, PROMOTE)
    assert answer.startswith("error: Until 2030-01-01 15:35:30 UTC somebody may hold a JWK Set")
    assert everything() == before and history() == []


def test_without_a_standby_none_is_promoted(clock):
    (answer,) = said(client("rotate"), PROMOTE)
    assert answer.startswith("error: There is no standby that could take over")


def test_the_key_that_signs_is_revoked_once_its_kid_was_typed(ring):
    visitor, (active, standby) = client("revoke"), rows()
    told = words(page(visitor, at(active, "revoke")))
    assert f"This revokes the key {active.kid} of the ring default, for good" in told
    assert "It signs now." in told
    assert f"The standby {standby.kid} signs from then on. It has been published for 1 day" in told
    assert "It leaves the JWK Set within 2 minutes, or 1 hour 2 minutes where" in told
    # PROCESS_CACHE_TTL + REPLICA_LAG + JWKS_MAX_AGE + JWKS_STALE_IF_ERROR
    assert "trust it, for 1 hour 16 minutes: until 2030-01-02 13:16 UTC." in told
    before = everything()
    for wrong in (
        {"kid": standby.kid},
        {"kid": active.kid[:-1]},
        {"kid": active.kid.swapcase()},
        {"kid": ""},
        {"reason": ""},
        {"reason": " "},
        {"reason": "x" * 256},
    ):
        answer = visitor.post(at(active, "revoke"), confirmed(active, **wrong))
        assert answer.status_code == 200 and "errorlist" in answer.content.decode()
    assert everything() == before and history() == []
    answers = said(visitor, at(active, "revoke"), confirmed(active))
    third = rows()[2]
    assert answers == [
        f"success: Key {standby.kid}: Promoted; it signs from 2030-01-02 11:58 UTC.",
        f"success: Key {active.kid}: Revoked: {REASON}",
        f"success: Key {third.kid}: Made; it signs from 2030-01-09 11:58 UTC.",
    ]
    assert [(who, what) for who, what, _ in history()] == [
        ("ada", str(third)),
        ("ada", str(standby)),
        ("ada", str(active)),
    ]
    assert history()[-1][-1] == f"Revoked: {REASON}"
    assert rows()[0].private_envelope is None and rows()[0].revoke_reason == REASON
    assert keeper().store.signing_key().kid == standby.kid


def test_what_a_revocation_means_depends_on_the_key(clock):
    visitor = client("revoke")

    def meant(number: int) -> str:
        return words(page(visitor, at(rows()[number], "revoke")))

    keeper().rotate()
    assert "It is so new that whoever holds an older JWK Set refuses what it signs" in meant(0)
    assert "until 2030-01-01 15:35 UTC (in 3 hours 36 minutes) at most" in meant(0)
    assert "It has signed nothing yet. A new standby is made" in meant(1)
    clock.pass_(days=1)
    keeper().promote()
    assert "There is no standby. A new key is made and signs at once" in meant(1)
    assert "It does not sign any more; another key does" in meant(0)
    clock.pass_(days=2)
    assert "It has left the JWK Set already" in meant(0)
    assert "trust it, for" not in meant(0)


def test_a_reason_is_text_and_no_markup(ring):
    visitor, row = client(*ALL), rows()[1]
    said(visitor, at(row, "revoke"), confirmed(row, reason="<script>alert(1)</script>"))
    for path in (LIST, at(row, "change"), at(row, "history")):
        assert "<script>alert" not in page(visitor, path)
    assert "&lt;script&gt;alert" in page(visitor, at(row, "change"))


def test_a_revoked_key_is_not_revoked_again(ring):
    row = rows()[1]
    keeper().revoke(row.kid)
    visitor, before = client("revoke"), everything()
    assert at(row, "revoke") not in page(visitor) + page(visitor, at(row, "change"))
    answer = visitor.get(at(row, "revoke"), follow=True)
    assert "It is revoked already." in answer.content.decode()
    assert said(visitor, at(row, "revoke"), confirmed(row)) == ["warning: It is revoked already."]
    assert everything() == before


# -- when something is wrong -----------------------------------------------------------------------


def test_whoever_loses_a_race_is_told_and_changes_nothing(ring):
    visitor, row = client(*ALL), rows()[1]
    with meanwhile(lambda: keeper().promote()):
        (answer,) = said(visitor, PROMOTE)
    assert (
        answer == f"warning: Nothing was changed: Another process has just changed key {row.kid!r}."
    )
    active = rows()[1]
    with meanwhile(lambda: keeper().emergency(kid=active.kid)):
        (answer,) = said(visitor, at(active, "revoke"), confirmed(active))
    assert answer.startswith("warning: Nothing was changed: Another process has just ")
    assert history() == []


@contextmanager
def broken(by: str, row: SigningKey) -> Iterator[str]:
    """Break the ring in one of several ways; give what is said of it."""
    if by == "schedule":
        edit(row, retention=1)
        yield f"The row of key {row.kid!r} was tampered with."
    elif by == "seal":
        edit(row, seal=b"")
        yield f"The row of key {row.kid!r} was tampered with."
    elif by == "deleted":
        keeper().rotate()
        SigningKey.objects.filter(pk=rows()[0].pk).update(sequence=99)
        yield "A row was deleted: the ring has no number 3."
    else:
        name = keeper().options.encryption_keys.current.name
        with override_settings(BAIKAL=aliases(default={"ENCRYPTION_KEYS": KEKS[:1]})):
            yield f"The row of key {row.kid!r} needs the key-encryption key {name}, which is not"


@pytest.mark.parametrize("by", ["schedule", "seal", "deleted", "key"])
def test_a_broken_ring_is_shown_loudly_and_left_alone(ring, by):
    visitor, row = client(*ALL), rows()[1]
    with broken(by, row) as why:
        before = everything()
        for path in (LIST, at(row, "change")):
            notes = re.findall(r'<p class="errornote">(.*?)</p>', page(visitor, path))
            assert any(why in html.unescape(note) for note in notes)
            assert "no process reads the ring default" in notes[-1]
        shown = page(visitor)
        assert set(buttons(shown).values()) == {(False, "The ring cannot be read.")}
        column = {"key": "✕ key missing", "deleted": "✕ TAMPERED WITH"}
        assert column.get(by, "✕ TAMPERED WITH") in words(shown)
        assert at(row, "revoke") not in shown
        for path in (ROTATE, PROMOTE):
            (answer,) = said(visitor, path)
            assert answer.startswith("error: ")
        answer = said(visitor, at(row, "revoke"), confirmed(row))
        assert answer == ["warning: The ring cannot be read."]
        assert everything() == before and history() == []


def test_a_ring_that_nobody_keeps_is_shown_and_left_alone(ring):
    before, row, visitor = everything(), rows()[0], client(*ALL)
    with override_settings(BAIKAL={"default": {**aliases()["default"], "KEYS": None}}):
        shown = words(page(visitor))
        assert "Note: No alias of BAIKAL keeps this ring" in shown
        assert "? not checked" in shown and "● active" in shown
        assert not buttons(page(visitor)) and "Revoke…" not in shown
        assert row.kid in page(visitor, at(row, "change"))
        for path in (ROTATE, PROMOTE):
            answer = said(visitor, path)
            assert answer == ["error: No alias of BAIKAL keeps the ring 'default'."]
        answer = said(visitor, at(row, "revoke"), confirmed(row))
        assert answer == [
            "warning: No alias of BAIKAL keeps its ring, and its row cannot be sealed."
        ]
    assert everything() == before


def test_settings_that_are_wrong_are_named(ring):
    row, visitor = rows()[0], client(*ALL)
    with override_settings(BAIKAL=aliases(default={"RETENTION": "soon"})):
        for path in (LIST, at(row, "change")):
            assert "RETENTION must be a number of seconds." in page(visitor, path)
        (answer,) = said(visitor, PROMOTE)
    assert answer.startswith("error: BAIKAL['default']: KEYS OPTIONS: RETENTION must be")


def test_times_that_break_a_rule_are_named_and_stop_rotations(ring):
    with override_settings(BAIKAL=aliases(default={"PROPAGATION": 3600})):
        visitor = client(*ALL)
        shown = page(visitor)
        why = "PROPAGATION is 3600 s, and must be at least 12930 s."
        assert f"The times break rule R1: {why}" in shown
        assert set(buttons(shown).values()) == {(False, why)}
        assert said(visitor, PROMOTE)[0].startswith("error: The times of the ring break rule R1")


@pytest.mark.parametrize("path", [LIST, "change", "history", "revoke"])
def test_a_database_that_fails_is_no_error_of_the_page(ring, path):
    visitor, row = client(*ALL), rows()[0]
    with database_down():
        answer = visitor.get(path if path == LIST else at(row, path), follow=True)
    assert answer.redirect_chain == [("/admin/", 302)]
    assert "The database failed (OperationalError)." in answer.content.decode()
    assert "db.internal" not in answer.content.decode()


def test_a_database_that_fails_while_something_is_done_is_no_error_either(ring):
    visitor, row = client(*ALL), rows()[0]
    before = everything()
    with database_down():
        for path in (ROTATE, PROMOTE, at(row, "revoke")):
            answer = visitor.post(path, confirmed(row))
            assert answer.status_code == 302
    shown = page(visitor, "/admin/")
    assert shown.count("The database failed (OperationalError).") == 3
    assert "db.internal" not in shown
    assert everything() == before


def test_no_page_is_in_a_transaction_that_breaks_with_the_database(ring):
    """As with ATOMIC_REQUESTS: nothing could be told in it, nor the session be saved."""
    for _, path in everywhere(rows()[0]):
        assert "default" in resolve(path).func._non_atomic_requests, path


def test_what_was_done_stays_done_when_the_history_cannot_be_written(ring):
    visitor, row = client("rotate"), rows()[1]

    def fail(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        if sql.startswith("INSERT") and "django_admin_log" in sql:
            raise DatabaseError("disk full on db.internal")
        return execute(sql, *args)

    with connection.execute_wrapper(fail):
        done, not_written = said(visitor, PROMOTE)
    assert done.startswith(f"success: Key {row.kid}: Promoted")
    assert not_written == "warning: It could not be written to the history (DatabaseError)."
    assert keeper().store.signing_key().kid == row.kid


@pytest.mark.skipif(connection.vendor != "sqlite", reason="others keep no such thing in a column")
@pytest.mark.parametrize(
    ("column", "value", "opens"),
    [
        ("activates_at", "2030-13-45 00:00:00", False),
        ("activates_at", "soon", True),
        ("retention", "long", True),
        ("sequence", "first", True),
    ],
)
def test_a_column_that_holds_anything_else_is_no_error_of_the_page(ring, column, value, opens):
    visitor, row = client(*ALL), rows()[0]
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA ignore_check_constraints = 1")
        cursor.execute(f"UPDATE {TABLE} SET {column} = %s WHERE id = %s", [value, row.pk])
        cursor.execute("PRAGMA ignore_check_constraints = 0")
    for path in (LIST, at(row, "change")):
        answer = visitor.get(path, follow=True)
        text = words(answer.content.decode())
        assert answer.status_code == 200 and bool(answer.redirect_chain) is not opens
        assert "holds what cannot be in its column" in text
        assert ("? unknown" in text) is opens


def test_a_key_of_a_later_version_is_shown_without_its_parts(ring):
    row, visitor = rows()[0], client("view")
    edit(row, public_jwk='{"kty": "AKP", "pub": "x"}', alg="ML-DSA-44")
    assert page(visitor, at(row, "change")).count("of a kind that is not known here") == 2


def test_a_row_that_has_just_come_is_shown_all_the_same(ring):
    found = overviews(rows()[:1])
    assert found.rings["default"].of(rows()[1]).state == "unknown"


# -- what it stands on -----------------------------------------------------------------------------


def test_without_time_zones_times_are_told_as_they_are(clock):
    assert told(clock.now.replace(tzinfo=None)) == "2030-01-01 12:00"


def test_a_window_is_never_empty(ring):
    timing = keeper().options.timing
    empty = keeper().read()
    start, end = window(empty, [], timing, ring.now)
    assert end - start >= timedelta(hours=1)
    times = bar(empty, empty.rows[0], timing, end)
    assert times.phase(start - timedelta(days=30)) is None


def test_the_checks_of_the_admin_find_nothing_wrong():
    assert checks.run_checks(app_configs=[apps.get_app_config("django_baikal")]) == []
    assert admin.site.is_registered(SigningKey)


def test_a_project_without_an_admin_does_not_load_this_one():
    code = (
        "import django, sys; django.setup(); from django_baikal import clients, models; "
        "print('django_baikal.admin' in sys.modules, 'django.contrib.admin' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]
