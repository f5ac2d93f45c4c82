"""The page for marketers, in a real browser: from the token to a user's card, with texts that would break out."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import chromium
import pytest
import uvicorn
from simulated_snapshot import publish

from lcm_ml.service import store
from lcm_ml.service.app import create_app

TOKEN = "a-token-of-this-test"
HOSTILE = "<script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"
needs_browser = pytest.mark.skipif(chromium.find() is None, reason="no chromium here: install it, or set CHROMIUM")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service, listening, over users and products with hostile names."""
    folder = tmp_path_factory.mktemp("shop") / "x.published"
    publish(folder, 12, user_id=HOSTILE, title=HOSTILE, reason=HOSTILE, why=HOSTILE, action="win_back")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "build_assistant", lambda *_: None)
        app = create_app(folder, TOKEN, frozenset(("127.0.0.1",)), 10_000)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
        server.should_exit = True
        thread.join()


def wait_for(tab: chromium.Page, script: str) -> Any:
    """The value of an expression, once it is true."""
    deadline = time.monotonic() + 30
    while not (value := tab.evaluate(script)):
        assert time.monotonic() < deadline, f"{script}: {tab.evaluate('document.body.innerText')}"
        time.sleep(0.05)
    return value


def write(tab: chromium.Page, text: str) -> None:
    """Type into what has the focus, and press Enter."""
    tab.call("Input.insertText", text=text)
    tab.press("Enter")


@needs_browser
def test_a_marketer_finds_a_user_with_the_keyboard_alone(url: str) -> None:
    with chromium.page() as tab:
        tab.open(url, 320, 700)
        wait_for(tab, "document.activeElement.id === 'token'")
        write(tab, "a-wrong-token")
        wait_for(tab, "document.querySelector('#message').innerText.includes('not the token')")
        write(tab, TOKEN)
        wait_for(tab, "document.activeElement.id === 'query'")
        write(tab, HOSTILE[:8])
        wait_for(tab, "!document.querySelector('#card').hidden")
        card = tab.evaluate("document.querySelector('#card').innerText")
        assert f"User {HOSTILE}" in card
        for told in ("Next action", "win back", "Whether it stays", "What to offer next", HOSTILE):
            assert told in card
        assert tab.evaluate("document.title") == "Look up a user"
        assert tab.evaluate("document.querySelectorAll('#card script, #card img').length") == 0
        for width in (320, 1200):
            tab.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert not tab.told("Runtime.exceptionThrown")
        asked = [event["request"]["url"] for event in tab.told("Network.requestWillBeSent")]
        assert all(address.startswith((url, "data:")) for address in asked)
        # The list of those found is reached with Tab, and Enter opens a card.
        tab.evaluate("document.querySelector('#query').value = 'U'; document.querySelector('#search button').click()")
        wait_for(tab, "document.querySelectorAll('#results button').length === 11")
        tab.evaluate("document.querySelector('#search button').focus()")
        tab.press("Tab")
        tab.press("Enter")
        wait_for(tab, "document.querySelector('#card-title')?.innerText === 'User U0000001'")
        assert tab.evaluate("document.activeElement.id") == "card"
