"""page_check.py URL OUT: the web page in a real Chromium (Playwright's Python package driving the system's chromium), with screenshots in OUT to look at.
By hand: pip install playwright; apt install chromium."""
import pathlib
import sys

from playwright.sync_api import sync_playwright

url, out = sys.argv[1], pathlib.Path(sys.argv[2])
media = pathlib.Path(__file__).resolve().parent.parent.parent / "models/demo/media"
problems = []


def check(what, ok):
    print(("ok     " if ok else "FAILED ") + what)
    if not ok:
        problems.append(what)


def answered(page, n):
    for _ in range(600):                       # no eval here: the page's policy forbids it
        if page.locator(".turn.assistant").count() >= n and page.locator("#stop").is_hidden():
            break
        page.wait_for_timeout(100)
    return page.locator(".turn.assistant").last


with sync_playwright() as p:
    browser = p.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"])
    context = browser.new_context(viewport={"width": 1200, "height": 800}, permissions=["microphone", "clipboard-write"])
    page = context.new_page()
    said = []
    page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: said.append(str(e)))
    outside = []
    page.on("request", lambda r: outside.append(r.url) if not r.url.startswith((url, "data:", "blob:")) else None)
    page.goto(url)
    page.wait_for_selector("#model option", state="attached")
    check("models are listed", page.locator("#model option").count() >= 1)
    page.screenshot(path=out / "empty.png")
    page.set_input_files("#file", str(media / "receipt.png"))
    page.wait_for_selector("#attachments img")
    page.fill("#input", "Read the text.")
    page.keyboard.press("Enter")
    last = answered(page, 1)
    check("a picture is read", "Corner Cafe" in last.inner_text())
    check("figures are shown", "tokens/s" in last.inner_text())
    page.screenshot(path=out / "receipt.png")
    page.fill("#input", "What is the total?")
    page.click("#send")
    last = answered(page, 2)
    check("a second turn", "$33.59" in last.inner_text())
    check("it came from the cache", "cached" in last.inner_text())
    page.locator(".turn.assistant").last.get_by_text("Again").click()
    last = answered(page, 2)
    check("regenerate", "$33.59" in last.inner_text())
    page.click("#panel-open")
    page.select_option("#enable_thinking", "true")
    page.fill("#tools", '[{"type":"function","function":{"name":"get_weather","description":"Weather","parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}}]')
    page.screenshot(path=out / "panel.png")
    page.click("#panel-open")
    page.click("#new")
    page.fill("#input", "What is the weather in Paris?")
    page.keyboard.press("Enter")
    last = answered(page, 1)
    check("a call is shown", "Call of get_weather" in last.inner_text())
    page.screenshot(path=out / "tools.png")
    page.click("#panel-open")
    page.fill("#tools", "")
    page.click("#panel-open")
    page.click("#new")
    page.fill("#input", "What is 2+3?")
    page.keyboard.press("Enter")
    answered(page, 1)
    check("thinking is folded", page.locator("details.thinking").count() == 1 and not page.locator("details.thinking").evaluate("d => d.open"))
    check("conversations are kept", page.locator("#chats li").count() == 3)
    page.reload()
    page.wait_for_selector("#chats li")
    page.locator("#chats li").last.locator("button").first.click()
    check("and come back", "Corner Cafe" in page.locator("#log").inner_text())
    page.click("#record")
    page.wait_for_timeout(700)
    page.click("#record")
    page.wait_for_selector("#attachments li")
    check("sound is recorded", "recording.wav" in page.locator("#attachments").inner_text())
    page.click("#new")
    page.evaluate("""() => { const md = '# Head\\n\\nText with **bold**, `code` and <img src=x onerror=alert(1)>\\n\\n```python\\nprint("<b>")\\n```\\n\\n| a | b |\\n|---|---|\\n| 1 | 2 |\\n\\n1. one\\n2. two\\n   - deep\\n';
        return import('/web/markdown.js').then(m => { const a = document.createElement('article'); a.className = 'turn assistant'; a.append(...m.markdown(md)); document.getElementById('log').append(a); }); }""")
    check("Markdown is no HTML", page.locator("#log img").count() == 0 and page.locator("#log pre code").inner_text() == 'print("<b>")' and page.locator("#log td").count() == 2)
    page.screenshot(path=out / "markdown.png")
    page.click("#theme")
    page.screenshot(path=out / "dark.png")
    page.set_viewport_size({"width": 390, "height": 780})
    page.screenshot(path=out / "phone.png")
    check("the list is away on a phone", not page.locator("#side").is_visible())
    page.click("#side-open")
    page.wait_for_timeout(100)
    page.screenshot(path=out / "phone_list.png")
    check("no request left the server", not outside)
    check("nothing on the console", not said)
    if said:
        print(said)
    unlabelled = page.evaluate("""() => [...document.querySelectorAll('button, input, select, textarea')].filter(e => !e.hidden && !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length || e.title)).map(e => e.outerHTML)""")
    check("every control has a name", not unlabelled)
    browser.close()
sys.exit(bool(problems))
