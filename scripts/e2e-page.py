"""Called by scripts/e2e-page: a person with a browser, a link and a machine."""

import os
import re
import sys
import time

from playwright.sync_api import expect, sync_playwright

shots = sys.argv[1]
work = os.environ["DIRECT_WORK"]
base = f"http://{os.environ['DIRECT_ADDRESS']}"


def links():
    return re.findall(r"Page: +(\S+#token=\w+)", open(os.environ["DIRECT_LOG"]).read())


def step(name):
    print("ok ", name)


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(
        executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"]
    )
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    shot = lambda name: page.screenshot(path=os.path.join(shots, f"{name}.png"))
    log = page.locator("#log")

    def send(text):
        page.fill("#input", text)
        page.click("#send")

    page.goto(f"{base}/ui")
    expect(page.locator("#login-token")).to_be_visible()
    page.fill("#login-token", "wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(log).to_contain_text("did not accept")
    shot("1-login")
    step("without a token and with a wrong one the page asks")

    link = links()[-1]
    page.goto("about:blank")
    page.goto(link)
    expect(page.locator("#link")).to_have_text("connected")
    assert "token" not in page.url, page.url
    stored = page.evaluate("JSON.stringify([Object.keys(localStorage), Object.keys(sessionStorage), document.cookie])")
    assert stored == '[[],[],""]', stored
    step("the link signs in; the token stands nowhere but in memory")

    page.click("#new-conversation")
    send("SPLIT 6\nPACE 0.15\nSAY This answer comes in several pieces.")
    expect(log).to_contain_text("This answer")
    expect(log).to_contain_text("in several pieces.")
    expect(page.locator("#loop")).to_have_text("idle")
    shot("2-stream")
    step("a message is answered, and the answer streams")

    asked, edited = f"{work}/asked.txt", f"{work}/edited.txt"
    write = lambda path: f'CALL Write {{"file_path":"{path}","content":"hello\\n"}}\nSAY done writing'
    send(write(asked))
    ask = page.locator(".ask").last
    expect(ask).to_be_visible()
    shot("3-approval")
    ask.locator("textarea").first.fill(f'{{"file_path":"{edited}","content":"edited\\n"}}')
    ask.get_by_role("button", name=re.compile("^(Allow|Run|Yes)")).first.click()
    expect(log).to_contain_text("done writing")
    assert not os.path.exists(asked) and open(edited).read() == "edited\n"
    step("a call is approved with other arguments")

    denied = f"{work}/denied.txt"
    send(write(denied))
    ask = page.locator(".ask").last
    expect(ask.get_by_role("button", name=re.compile("^(Deny|No)")).first).to_be_visible()
    ask.get_by_role("button", name=re.compile("^(Deny|No)")).first.click()
    expect(page.locator("#loop")).to_have_text("idle")
    assert not os.path.exists(denied)
    shot("4-denied")
    step("a call is denied")

    page.select_option("#mode", "unrestricted")
    time.sleep(0.5)
    send('CALL Bash {"command":"sleep 600","description":"Wait"}\nSAY never')
    expect(page.locator("#loop")).to_have_text("running a tool")
    page.click("#abort")
    expect(page.locator("#loop")).to_have_text("idle")
    expect(log).to_contain_text("Interrupted")
    step("a turn is stopped")

    page.click("#tab-terminal")
    screen = page.locator(".terminal")
    screen.press_sequentially("echo shell-$((40+2))\n", delay=10)
    expect(screen).to_contain_text("shell-42")
    shot("5-terminal")
    screen.press_sequentially("exit\n")
    expect(screen).to_contain_text("ended with 0")
    page.click("#tab-chat")
    step("a terminal opens, runs a command and ends")

    second = browser.new_page()
    second.goto(link)
    expect(second.locator("#log")).to_contain_text("did not accept")
    assert links()[-1] != link
    second.goto("about:blank")
    second.goto(links()[-1])
    expect(second.locator("#link")).to_have_text("connected")
    step("a link is good once; the next one is printed")

    assert not problems, problems
    browser.close()
