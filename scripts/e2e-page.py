"""Called by scripts/e2e-page: a person with a browser, a link and a machine."""

import os
import re
import subprocess
import sys
import time

from playwright.sync_api import expect, sync_playwright

expect.set_options(timeout=30_000)
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

    def shell(line):
        subprocess.run(line, shell=True, check=True, cwd=work)

    shell("git init -q -b main . && git config user.name t && git config user.email t@t")
    shell("mkdir -p docs mine && echo 'a needle here' > docs/guide.md && git add docs")
    shell("git commit -qm first && git branch other")
    shell("printf -- '---\\nname: mine\\ndescription: Of the test\\n---\\nDo it.\\n' > mine/SKILL.md")
    page.click("#tab-files")
    expect(page.locator("#files-path")).not_to_have_value("")
    page.fill("#files-path", work)
    page.locator("#files-go button").click()
    page.get_by_role("button", name="docs/", exact=True).click()
    page.get_by_role("button", name="guide.md", exact=True).click()
    expect(page.locator("#files-text")).to_have_value("a needle here\n")
    page.fill("#files-text", "a needle there\n")
    page.click("#files-save")
    expect(page.locator("#files-save")).to_be_disabled()
    assert open(f"{work}/docs/guide.md").read() == "a needle there\n"
    shell("echo 'from outside' > docs/guide.md")
    expect(page.locator("#files-text")).to_have_value("from outside\n")
    page.fill("#files-path", work)
    page.locator("#files-go button").click()
    expect(page.get_by_role("button", name="docs/", exact=True)).to_be_visible()
    for kind, query, found in [("names", "guide", "docs/guide.md"), ("contents", "outside", "docs/guide.md:1")]:
        page.select_option("#files-kind", kind)
        page.fill("#files-query", query)
        page.locator("#files-search button").click()
        expect(page.locator("#files-list")).to_contain_text(found)
    shot("6-files")
    step("files are browsed, opened, saved, followed and searched")

    page.click("#tab-chat")
    send("SAY now a repository")
    expect(page.locator("#branch")).to_have_value("main")
    page.fill("#branch", "other")
    page.click("#switch")
    expect(log).to_contain_text("Now on other")
    expect(page.locator("#branch")).to_have_value("other")
    step("a branch is switched")

    page.click("#load-models")
    expect(page.locator("#model")).to_be_enabled()
    page.click("#use-model")
    expect(log).to_contain_text("Model: ")
    step("models are listed and one is used")

    page.fill("#skill-path", f"{work}/mine")
    page.locator("#enable-skill button").click()
    expect(log).to_contain_text("Skill enabled: mine")
    send("SAY with a skill")
    row = page.locator("#skills li", has_text="mine")
    expect(row).to_be_visible()
    shot("7-machine")
    row.get_by_role("button", name="Disable").click()
    send("SAY without it")
    expect(row).to_have_count(0)
    step("a skill is enabled, shown and disabled")

    advertised = page.locator("#slash button").all_inner_texts()
    assert {"/clear", "/init", "/doctor", "/remember"} <= set(advertised), advertised
    # Capability flags are no commands; those that clear come last.
    flags = {"/toolset", "/secret", "/monitor_stop"}
    commands = sorted(set(advertised) - flags, key=lambda name: name.startswith("/clear"))
    for name in commands:
        before = page.locator("#log > *").count()
        send(name)
        page.wait_for_function("n => document.querySelectorAll('#log > *').length > n", arg=before)
        expect(page.locator("#loop")).to_have_text("idle")
        time.sleep(0.3)
        last = page.locator("#log").inner_text()
        assert f"Unknown command: {name[1:]}" not in last, name
    shot("8-slash")
    step(f"every slash command is answered: {' '.join(commands)}")

    def full_screen(name, line, shows, keys, left):
        page.click("#tab-terminal")
        page.get_by_role("button", name="New terminal").click()
        screen = page.locator(".terminal:not(.hidden)")
        screen.press_sequentially(line + "\n", delay=5)
        expect(screen).to_contain_text(re.compile(shows))
        time.sleep(1)
        shot(name)
        for key in keys:
            screen.press(key) if len(key) > 1 else screen.press_sequentially(key)
        screen.press_sequentially(f"echo {left}-$((1+1))\n", delay=5)
        expect(screen).to_contain_text(f"{left}-2")

    full_screen("9-vim", "vim -u NONE docs/guide.md", "from outside", ["Escape", ":", "q", "!", "Enter"], "vim")
    full_screen("10-top", "top", "load average", ["q"], "top")
    step("vim and top are usable")
    page.click("#tab-chat")

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
