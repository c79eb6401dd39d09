"""The keys of the page: on every layout, with modifiers, and as a person chooses them."""

from __future__ import annotations

import pytest

from annotation_queue.records import State
from tests.annotation_queue.browsing import FRAMES
from tests.annotation_queue.synthetic_queue import verify_tickets

PLACES = [
    ["Backquote", *(f"Digit{d}" for d in "1234567890"), "Minus", "Equal"],
    [*(f"Key{c}" for c in "QWERTYUIOP"), "BracketLeft", "BracketRight", "Backslash"],
    [*(f"Key{c}" for c in "ASDFGHJKL"), "Semicolon", "Quote"],
    [*(f"Key{c}" for c in "ZXCVBNM"), "Comma", "Period", "Slash"],
]
# What each key prints, row by row: plain, with Shift, with AltGr. ° stands for a dead key, a blank for nothing.
LAYOUTS = {
    "American": (
        ["`1234567890-=", "qwertyuiop[]\\", "asdfghjkl;'", "zxcvbnm,./"],
        ["~!@#$%^&*()_+", "QWERTYUIOP{}|", 'ASDFGHJKL:"', "ZXCVBNM<>?"],
        [],
    ),
    "German": (
        ["°1234567890ß°", "qwertzuiopü+#", "asdfghjklöä", "yxcvbnm,.-"],
        ['°!"§$%&/()=?°', "QWERTZUIOPÜ*'", "ASDFGHJKLÖÄ", "YXCVBNM;:_"],
        ["       {[]}\\ ", "@ €        ~ ", "           ", "      µ   "],
    ),
    "French": (
        ["²&é\"'(-è_çà)=", "azertyuiop°$*", "qsdfghjklmù", "wxcvbn,;:!"],
        [" 1234567890°+", "AZERTYUIOP°£µ", "QSDFGHJKLM%", "WXCVBN?./§"],
        ["  °#{[|°\\^@]}", "  €        ¤ ", "           ", "          "],
    ),
    "Russian": (
        ["ё1234567890-=", "йцукенгшщзхъ\\", "фывапролджэ", "ячсмитьбю."],
        ['Ё!"№;%:?*()_+', "ЙЦУКЕНГШЩЗХЪ/", "ФЫВАПРОЛДЖЭ", "ЯЧСМИТЬБЮ,"],
        [],
    ),
    "Greek": (
        ["`1234567890-=", ";ςερτυθιοπ[]\\", "ασδφγηξκλ°'", "ζχψωβνμ,./"],
        ["~!@#$%^&*()_+", ":°ΕΡΤΥΘΙΟΠ{}|", 'ΑΣΔΦΓΗΞΚΛ°"', "ΖΧΨΩΒΝΜ<>?"],
        [],
    ),
    "Dvorak": (
        ["`1234567890[]", "',.pyfgcrl/=\\", "aoeuidhtns-", ";qjkxbmwvz"],
        ["~!@#$%^&*(){}", '"<>PYFGCRL?+|', "AOEUIDHTNS_", ":QJKXBMWVZ"],
        [],
    ),
    "Brazilian": (
        ["'1234567890-=", "qwertyuiop°[]", "asdfghjklç°", "zxcvbnm,.;"],
        ['"!@#$%°&*()_+', "QWERTYUIOP`{}", "ASDFGHJKLÇ°", "ZXCVBNM<>:"],
        [],
    ),
}
VERDICTS = ("accept", "refine", "reject", "unsure")
NAMED = ["Enter", "Backspace", "Delete", "Home", "End", "PageUp", "PageDown", "ArrowLeft", "ArrowRight", " "]


def presses(layout):
    """Every key of a layout with every modifier, as the browser reports them."""
    found = []
    for level, rows in enumerate(LAYOUTS[layout]):
        for codes, printed in zip(PLACES, rows or [" " * len(row) for row in PLACES], strict=True):
            assert len(codes) == len(printed), (layout, printed)
            for code, sign in zip(codes, printed, strict=True):
                if sign != " ":
                    key = "Dead" if sign == "°" else sign
                    found.append({"key": key, "code": code, "shiftKey": level == 1, "modifierAltGraph": level == 2})
    found += [{"key": key, "code": key if key != " " else "Space", "shiftKey": s} for key in NAMED for s in (0, 1)]
    plain = [press for press in found if not press.get("modifierAltGraph")]
    windows = [press | {"ctrlKey": True, "altKey": True} for press in found if press.get("modifierAltGraph")]
    return found + windows + [press | {"ctrlKey": True} for press in plain]


FIND = """
async (presses) => {
  const { ACTIONS, find } = await import("/web/shared/keys.js");
  const found = presses.map((press) => {
    const event = new KeyboardEvent("keydown", press);
    return ["verify", "track"].map((view) => find(event, view)?.id ?? "");
  });
  return [ACTIONS.map(({ id, view }) => [id, view ?? "verify"]), found];
}
"""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_action_has_a_key_on_every_layout(open_page, layout):
    sent = presses(layout)
    actions, found = open_page().tab.evaluate(FIND, sent)
    reached = {(id, view) for pair in found for id, view in zip(pair, ("verify", "track"), strict=True)}
    assert [id for id, view in actions if (id, view) not in reached] == []
    for press, (verify, _) in zip(sent, found, strict=True):
        verdict = {"a": "accept", "e": "refine", "x": "reject", "u": "unsure"}.get(press["key"], "")
        if len(press["key"]) == 1 and "a" <= press["key"] <= "z" and not press.get("ctrlKey"):
            assert verify == verdict or not verdict and verify not in VERDICTS, (
                "a Latin letter is never read by its place"
            )


@pytest.mark.parametrize("modifier", ["altKey", "ctrlKey", "metaKey", "modifierAltGraph"])
def test_a_letter_with_a_modifier_is_no_verdict(open_page, modifier):
    letters = [(key, f"Key{code}") for key, code in zip("aexuAEXUфуч", "AEXUAEXUAEX", strict=True)]
    sent = [{"key": key, "code": code, modifier: True, "shiftKey": key.isupper()} for key, code in letters]
    _, found = open_page().tab.evaluate(FIND, sent)
    assert {id for pair in found for id in pair} & {"accept", "refine", "refineWhy", "reject", "unsure"} == set()


PRESS = "(press) => dispatchEvent(new KeyboardEvent('keydown', { ...press, bubbles: true, cancelable: true }))"


def test_verdicts_reasons_and_suspects_answer_on_a_russian_a_french_and_a_german_keyboard(verifying, tickets):
    page = verifying(2)
    page.tab.evaluate(PRESS, {"key": "ü", "code": "BracketLeft"})
    page.tab.evaluate(PRESS, {"key": "]", "code": "Digit9", "altKey": True, "ctrlKey": True, "modifierAltGraph": True})
    page.at(40)
    page.tab.evaluate(PRESS, {"key": "a", "code": "KeyA", "altKey": True})
    page.tab.evaluate(PRESS, {"key": "ч", "code": "KeyX"})
    page.tab.wait_for_selector("#reason-untrackable")
    page.tab.evaluate(PRESS, {"key": "è", "code": "Digit7"})
    page.until(
        lambda: [(t.ticket_id, t.verdict) for t in tickets.find(state=State.DONE)] == [("ticket-0000", "reject")]
    )


def test_chosen_keys_belong_to_the_person_in_every_browser(open_page, tickets):
    tickets.open_batch("b", verify_tickets(9, FRAMES))
    first, second = open_page(), open_page()
    for page, name in ((first, "vera"), (second, "victor")):
        page.log_in(name)
        page.paused_at_start()
    first.press("?")
    first.tab.click("#rebind-accept")
    for key, says in (("F5", "belongs to the browser"), ("Tab", "belongs to the browser"), ("?", "opens this list")):
        first.press(key)
        assert says in first.text("#keys-said"), key
        assert "press a key" in first.text("#rebind-accept")
    for key, says in (("4", "choose reasons"), ("Control+j", "with Ctrl"), ("Alt+j", "with Ctrl or Alt")):
        first.press(key)
        assert says in first.text("#keys-said"), key
    first.press("u")
    assert "taken: unsure" in first.text("#keys-said"), "a clash is said first"
    with first.tab.expect_response("**/api/me/keys"):
        first.press("r")
    first.press("Escape")
    assert first.text("#verdict-accept kbd") == "R" and first.text("#verdict-unsure kbd") == "U"
    third = open_page()  # another browser
    third.log_in("vera")
    third.paused_at_start()
    assert third.text("#verdict-accept kbd") == "R" and second.text("#verdict-accept kbd") == "A"
    second.tab.click("#log-out")  # and another person at the same browser
    second.shows("login")
    second.log_in("vera")
    second.shows("work")
    second.until(lambda: second.text("#verdict-accept kbd") == "R")
